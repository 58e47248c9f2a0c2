"""Cuts a text into chunks of a limited number of words, at sentence boundaries where it can.

Pure: offsets in, offsets out. A line break ends a sentence, because the readers unwrap hard-wrapped lines.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serving.sentences import sentence_starts

# No chunk holds more characters, so that its UTF-8 form fits the contract's 65,536 bytes whatever the script.
MAX_CHUNK_CHARS = 16_384

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Kana and Han: written without spaces.
_WORD = re.compile(rf"[{_UNSPACED}][^\s\w]*|[^\s{_UNSPACED}]{{1,{MAX_CHUNK_CHARS}}}")


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How a text is cut.

    Attributes:
        words: Most words in a chunk. 100 as in DPR. A Han or Kana character counts as a word.
        overlap: Words (at most) that a chunk repeats from the one before; fewer where a sentence starts later.
        language: ISO 639 code for the sentence rules.

    Raises:
        ValueError: When words < 1, or overlap is not in [0, words).
    """

    words: int = 100
    overlap: int = 0
    language: str = "en"

    def __post_init__(self) -> None:
        if self.words < 1:
            raise ValueError(f"chunk words must be at least 1, not {self.words}")
        if not 0 <= self.overlap < self.words:
            raise ValueError(f"overlap must be at least 0 and less than {self.words} words, not {self.overlap}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A half-open range of characters."""

    start: int
    end: int


def chunk_text(text: str, options: ChunkOptions) -> list[Chunk]:
    """Cuts a text into chunks that start and end with a word.

    Each chunk takes as many whole sentences as fit; a sentence longer than the limit is cut between words. Only a
    word of more than MAX_CHUNK_CHARS characters is itself cut. Without overlap each word is in exactly one chunk.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    starts = sentence_starts(text, options.language)
    boundaries = sorted({bisect_left(words, (start, 0)) for start in starts} | {len(words)})
    return [Chunk(words[first][0], words[last - 1][1]) for first, last in _word_ranges(words, boundaries, options)]


def _word_ranges(
    words: Sequence[tuple[int, int]], boundaries: Sequence[int], options: ChunkOptions
) -> Iterator[tuple[int, int]]:
    """Half-open ranges of word numbers; each starts and ends beyond the one before."""
    first, last = -1, 0
    while last < len(words):
        earliest = max(first + 1, last - options.overlap)
        for first in _candidate_starts(boundaries, earliest, last):
            limit = _limit(words, first, options.words)
            boundary = boundaries[bisect_right(boundaries, limit) - 1]
            if boundary > last:  # A whole sentence fits.
                last = boundary
                break
        else:  # An over-long sentence: cut it between words, after the plain overlap if that gets any further.
            first = earliest if _limit(words, earliest, options.words) > last else last
            last = _limit(words, first, options.words)
        yield first, last


def _candidate_starts(boundaries: Sequence[int], earliest: int, last: int) -> Iterator[int]:
    """Where the next chunk may start with a sentence: at the first one of the overlap, or after the last chunk."""
    snapped = boundaries[bisect_left(boundaries, earliest)]
    if snapped < last:
        yield snapped
    if boundaries[bisect_left(boundaries, last)] == last:
        yield last


def _limit(words: Sequence[tuple[int, int]], first: int, max_words: int) -> int:
    """The largest `last` such that words[first:last] keeps both limits; at least first + 1."""
    last = min(first + max_words, len(words))
    while last > first + 1 and words[last - 1][1] - words[first][0] > MAX_CHUNK_CHARS:
        last -= 1
    return last
