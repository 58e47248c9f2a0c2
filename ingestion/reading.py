"""From a file to its passages: the one table of formats."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ingestion.chunker import ChunkOptions, chunk_text
from ingestion.document import Document
from ingestion.errors import UnreadableFile
from ingestion.files import row_suffix
from ingestion.passages import Passage, cut_document, passage_id
from ingestion.readers.docx import read_docx
from ingestion.readers.html import read_html
from ingestion.readers.markdown import read_markdown
from ingestion.readers.pdf import read_pdf
from ingestion.readers.text import read_text
from ingestion.rows import MetadataColumn, read_rows

_READERS: Mapping[str, Callable[[bytes, str], Document]] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".docx": read_docx,
    ".pdf": read_pdf,
}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files become passages.

    Attributes:
        chunks: How documents are cut.
        cut_rows: Whether to cut the ready passages of row files, too.
        metadata_columns: Columns of row files kept as metadata.
    """

    chunks: ChunkOptions = field(default_factory=ChunkOptions)
    cut_rows: bool = False
    metadata_columns: tuple[MetadataColumn, ...] = ()


def read_passages(path: Path, source: str, options: ReadOptions) -> Iterator[Passage]:
    """Streams the passages of a file, in its order. At least one comes, or an error.

    Raises:
        UnreadableFile: The file is damaged, not UTF-8, holds no text, or is of an unsupported type.
    """
    if row_suffix(path.name) is None:
        yield from cut_document(read_document(path), source, options.chunks)
        return
    for passage in read_rows(path, source, options.metadata_columns):
        if options.cut_rows:
            yield from _cut_row(passage, options.chunks)
        else:
            yield passage


def read_document(path: Path) -> Document:
    """Extracts a document's text; its title falls back to the file's name.

    Raises:
        UnreadableFile: See read_passages.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UnreadableFile(f"files of type {path.suffix!r} are not supported")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {error.strerror}") from error
    document = read(data, " ".join(path.stem.replace("_", " ").split()))
    if not document.sections:
        raise UnreadableFile("holds headings, but no text" if document.text else "holds no text")
    return document


def _cut_row(passage: Passage, options: ChunkOptions) -> Iterator[Passage]:
    for chunk in chunk_text(passage.text, options):
        text = passage.text[chunk.start : chunk.end]
        yield replace(passage, id=passage_id(passage.id, chunk.start), text=text, start=chunk.start, end=chunk.end)
