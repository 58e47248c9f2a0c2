"""Markdown (CommonMark with tables): headings make sections, markup is dropped."""

import re
from collections.abc import Iterator, Sequence

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ingestion.document import Block, Document, assemble
from ingestion.readers.text import decode_utf8

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)(?:\n|\Z)", re.DOTALL)
_CODE = ("fence", "code_block")


def read_markdown(data: bytes, title: str) -> Document:
    """Reads Markdown. A title in YAML front matter is the document's, unless its one top heading is."""
    text = decode_utf8(data)
    if front := _FRONT_MATTER.match(text):
        title = _front_title(front[1]) or title
        text = text[front.end() :]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return assemble(_blocks(tokens), title=title)


def _front_title(text: str) -> str | None:
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    title = fields.get("title") if isinstance(fields, dict) else None
    return str(title) if title else None


def _blocks(tokens: Sequence[Token]) -> Iterator[Block]:
    row: list[str] | None = None
    level: int | None = None
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close" and row is not None:
            yield Block(" | ".join(row), separator="\n")
            row = None
        elif token.type in _CODE:
            yield Block(token.content)
        elif token.type == "inline" and row is not None:
            row.append(_plain(token))
        elif token.type == "inline":
            # Paragraphs inside lists and quotes are nested deeper than the paragraph that encloses the inline token.
            yield Block(_plain(token), level, separator="\n" if level is None and token.level > 1 else "\n\n")
            level = None


def _plain(token: Token) -> str:
    """The text of an inline token: link and image texts stay, marks and raw HTML go."""
    parts = []
    for child in token.children or ():
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type == "softbreak":
            parts.append(" ")
        elif child.type == "hardbreak":
            parts.append("\n")
        elif child.type == "image":
            parts.append(_plain(child))
    return "".join(parts)
