"""Word documents (.docx): heading styles make sections; footnotes, headers and text boxes are left out."""

import io
import re
from collections.abc import Iterator

import docx
from docx.document import Document as WordDocument
from docx.table import Table

from ingestion.document import Block, Document, assemble, clean
from ingestion.errors import UnreadableFile

_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(data: bytes, title: str) -> Document:
    """Reads a Word document. Its title is the paragraph of style Title, else the one in its properties."""
    try:
        document = docx.Document(io.BytesIO(data))
        blocks = list(_blocks(document))
        title = document.core_properties.title.strip() or title
    except Exception as error:  # A damaged archive fails in zipfile, lxml or python-docx, with anyone's exception.
        raise UnreadableFile(f"not a readable Word document: {error or type(error).__name__}") from error
    return assemble(blocks, title=title)


def _blocks(document: WordDocument) -> Iterator[Block]:
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            yield from _rows(item)
            continue
        style = (item.style.name if item.style is not None else None) or ""
        heading = _HEADING.match(style)
        level = int(heading[1]) if heading else 0 if style == "Title" else None
        yield Block(clean(item.text), level, separator="\n" if style.startswith("List") else "\n\n")


def _rows(table: Table) -> Iterator[Block]:
    for row in table.rows:
        cells = list(dict.fromkeys(row.cells))  # A merged cell is listed once per column.
        yield Block(clean(" | ".join(" ".join(cell.text.split()) for cell in cells)), separator="\n")
