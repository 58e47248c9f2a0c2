"""Plain text, and the decoding that the text formats share."""

from ingestion.document import Block, Document, assemble, clean, unwrap
from ingestion.errors import UnreadableFile


def decode_utf8(data: bytes) -> str:
    """The text of UTF-8 bytes, with or without a byte order mark.

    Raises:
        UnreadableFile: Not UTF-8; names the offset of the first bad byte.
    """
    try:
        return clean(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        bad = data[error.start : error.start + 1].hex()
        raise UnreadableFile(f"not UTF-8: byte 0x{bad} at offset {error.start}") from error


def read_text(data: bytes, title: str) -> Document:
    """Reads plain text as one section; its characters keep their offsets after the leading white space."""
    return assemble([Block(unwrap(decode_utf8(data)))], title=title)
