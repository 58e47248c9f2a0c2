"""What readers make of a file: one extracted text, its sections and its pages."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONG_LINE_CHARS = 40
_LINE_BREAK = re.compile(r"([^\n]*[^\s\n])[^\S\n]*\n(?=[^\S\n]*([^\s]))")
_LIST_MARK = re.compile(r"[-*•–·▪]|\d{1,3}[.)]\s")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item, table row or heading.

    Attributes:
        text: Line breaks in it end sentences.
        level: Of a heading, 0 (a title) to 9 (innermost); None for body text.
        page: 1-based; 0 when there are no pages.
        separator: What stands between the block before and this one in the extracted text.
    """

    text: str
    level: int | None = None
    page: int = 0
    separator: str = "\n\n"


@dataclass(frozen=True, slots=True)
class Section:
    """The half-open range of characters between two headings, and the heading's path as its title."""

    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """An extracted text. Headings are part of it, but of no section.

    Attributes:
        text: All offsets count its characters (Unicode code points).
        sections: In order; only those that hold text.
        page_starts: Offset at which each page starts; empty without pages.
    """

    title: str
    text: str
    sections: tuple[Section, ...]
    page_starts: tuple[int, ...] = ()

    def page_at(self, offset: int) -> int:
        """The 1-based page of a character; 0 when there are no pages."""
        return bisect_right(self.page_starts, offset)


def assemble(blocks: Iterable[Block], *, title: str) -> Document:
    """Joins blocks to one text and titles its sections "Document title: Section: Subsection".

    The document's title is its only heading of level 1 (or 0) if it has exactly one, else `title`.
    """
    kept = [block for block in blocks if block.text.strip()]
    levels = [block.level for block in kept if block.level is not None]
    tops = [block.text for block in kept if block.level == min(levels, default=9) <= 1]
    title = _one_line(tops[0]) if len(tops) == 1 else title
    text: list[str] = []
    length = 0
    page_starts: list[int] = []
    sections: list[Section] = []
    path: list[tuple[int, str]] = []
    for block in kept:
        separator = block.separator if length else ""
        content = block.text.strip()
        start, length = length + len(separator), length + len(separator) + len(content)
        text += [separator, content]
        page_starts += [start] * (block.page - len(page_starts))  # Pages without text start where the next one does.
        if block.level is not None:
            path = [(level, name) for level, name in path if level < block.level]
            path.append((block.level, _one_line(content)))
            sections.append(Section(_section_title(title, path), length, length))
        else:
            here = sections.pop() if sections else Section(title, start, start)
            sections.append(Section(here.title, start if here.start == here.end else here.start, length))
    filled = tuple(section for section in sections if section.end > section.start)
    return Document(title, "".join(text), filled, tuple(page_starts))


def clean(text: str) -> str:
    """The text with plain line breaks and without characters that no store or wire takes."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text))


def unwrap(text: str) -> str:
    """Turns the line breaks of hard-wrapped paragraphs into spaces; every character keeps its offset.

    A break is soft when the line is long or the next one goes on in lower case, and the next is no list item.
    """

    def soften(match: re.Match[str]) -> str:
        line, following = match[1], match[2]
        rest = text[match.start(2) : match.start(2) + 5]
        is_soft = len(line) >= _LONG_LINE_CHARS or following.islower()
        return match[0][:-1] + " " if is_soft and not _LIST_MARK.match(rest) else match[0]

    return _LINE_BREAK.sub(soften, text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _section_title(title: str, path: Iterable[tuple[int, str]]) -> str:
    names = [name for _, name in path]
    return ": ".join(names if names[:1] == [title] else [title, *names])
