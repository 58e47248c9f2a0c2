"""PDF: the text of each page in reading order, as far as the file tells it. Scanned pages hold none."""

import io
import re
from collections.abc import Iterable, Iterator

from pypdf import PdfReader
from pypdf.errors import DependencyError

from ingestion.document import Block, Document, assemble, clean, unwrap
from ingestion.errors import UnreadableFile

_HYPHENATION = re.compile(r"(?<=[^\W\d_])[-\u00ad]\n(?=[a-zß-öø-ÿ])")
_SENTENCE_ENDS = (".", "!", "?", ":", "”", '"', "。")


def read_pdf(data: bytes, title: str) -> Document:
    """Reads a PDF as one section; a sentence may run over a page break. Words hyphenated at a line's end are joined."""
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFile("encrypted: it needs a password")
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "").strip() or title
    except UnreadableFile:
        raise
    except DependencyError as error:
        raise UnreadableFile(f"encrypted: {error}") from error
    except Exception as error:  # A damaged PDF makes pypdf fail in many ways, not only with its own errors.
        raise UnreadableFile(f"not a readable PDF: {error or type(error).__name__}") from error
    if not any(page.strip() for page in pages):
        raise UnreadableFile(f"no text on its {len(pages)} pages: scanned, perhaps")
    return assemble(_blocks(pages), title=title)


def _blocks(pages: Iterable[str]) -> Iterator[Block]:
    before = ""
    for number, page in enumerate(pages, start=1):
        text = unwrap(_HYPHENATION.sub("", clean(page))).strip()
        goes_on = text[:1].islower() and not before.endswith(_SENTENCE_ENDS)
        yield Block(text, page=number, separator=" " if goes_on else "\n\n")
        before = text or before
