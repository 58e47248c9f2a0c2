"""HTML: the main part of the page; headings make sections, navigation and scripts are dropped."""

from collections.abc import Iterator

from bs4 import BeautifulSoup, CData, Tag
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString

from ingestion.document import Block, Document, assemble, clean
from ingestion.errors import UnreadableFile
from ingestion.readers.text import decode_utf8

_DROPPED = [
    "script",
    "style",
    "template",
    "noscript",
    "nav",
    "footer",
    "iframe",
    "svg",
    "head",
    "title",
    "select",
    "button",
]
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_BLOCKS = frozenset(
    {
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "ol",
        "p",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "ul",
    }
)


def read_html(data: bytes, title: str) -> Document:
    """Reads HTML in the encoding that it declares, else UTF-8. The <title> is the document's without one <h1>."""
    soup = BeautifulSoup(_decode(data), "html.parser")
    if soup.title is not None:
        title = " ".join(soup.title.get_text().split()) or title
    for tag in soup(_DROPPED):
        tag.decompose()
    try:
        return assemble(_blocks(soup.find("main") or soup.find(role="main") or soup), title=title)
    except RecursionError as error:
        raise UnreadableFile("its elements are nested too deeply") from error


def _decode(data: bytes) -> str:
    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    if declared is None or declared.lower().replace("-", "") == "utf8":
        return decode_utf8(data)
    try:
        return clean(data.decode(declared))
    except (UnicodeDecodeError, LookupError) as error:
        raise UnreadableFile(f"not in the encoding that it declares: {error}") from error


def _blocks(root: Tag) -> Iterator[Block]:
    """Blocks in reading order; text outside block elements is gathered until the next one."""
    inline: list[str] = []

    def flush(separator: str = "\n\n") -> Iterator[Block]:
        lines = (" ".join(line.split()) for line in "".join(inline).split("\v"))
        inline.clear()
        yield Block("\n".join(line for line in lines if line), separator=separator)

    def walk(node: Tag) -> Iterator[Block]:
        for child in node.children:
            if isinstance(child, Tag):
                if child.name in _HEADINGS:
                    yield from flush()
                    yield Block(" ".join(child.get_text(" ").split()), _HEADINGS[child.name])
                elif child.name == "tr":
                    yield from flush()
                    cells = (" ".join(cell.get_text(" ").split()) for cell in child(["td", "th"], recursive=False))
                    yield Block(" | ".join(cells), separator="\n")
                elif child.name == "pre":
                    yield from flush()
                    yield Block(child.get_text())
                elif child.name == "br":
                    inline.append("\v")
                elif child.name in _BLOCKS:
                    yield from flush()
                    yield from walk(child)
                    yield from flush("\n" if child.name in ("li", "dd", "dt") else "\n\n")
                else:
                    yield from walk(child)
            elif type(child) in (NavigableString, CData):  # Not comments and doctypes.
                inline.append(str(child))

    yield from walk(root)
    yield from flush()
