"""The passage, and how a document becomes passages."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ingestion.chunker import ChunkOptions, chunk_text
from ingestion.document import Document

MetadataValue = str | int | float | bool | tuple[str, ...]

_MAX_TITLE_BYTES = 1024
_MAX_ID_BYTES = 512


@dataclass(frozen=True, slots=True)
class Passage:
    """What goes into a collection.

    Attributes:
        id: "source#offset" for a passage cut from a document.
        start: First character in the extracted text; None for a ready passage. extracted_text[start:end] == text.
        end: Exclusive.
        page: 1-based; 0 without pages.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    start: int | None = None
    end: int | None = None
    page: int = 0
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


def cut_document(document: Document, source: str, options: ChunkOptions) -> Iterator[Passage]:
    """Cuts each section by itself, so that no passage runs over a heading."""
    for section in document.sections:
        title = shorten(section.title, _MAX_TITLE_BYTES)
        for chunk in chunk_text(document.text[section.start : section.end], options):
            start, end = section.start + chunk.start, section.start + chunk.end
            yield Passage(
                passage_id(source, start), document.text[start:end], title, source, start, end, document.page_at(start)
            )


def passage_id(source: str, offset: int | str) -> str:
    """An id "source#offset"; a source too long for an id is replaced by its SHA-256."""
    name = f"{source}#{offset}"
    return name if len(name.encode()) <= _MAX_ID_BYTES else f"{hashlib.sha256(source.encode()).hexdigest()}#{offset}"


def shorten(text: str, max_bytes: int) -> str:
    """The longest beginning of a text whose UTF-8 form fits, ending with "…" where something is missing."""
    data = text.encode()
    return text if len(data) <= max_bytes else data[: max_bytes - 3].decode(errors="ignore") + "…"
