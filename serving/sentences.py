"""Where sentences begin and end."""

from __future__ import annotations

import re
from itertools import pairwise

import sentencex

MAX_SENTENCES = 16  # Of a passage; in a longer one neighbours count as one.

_WIDE_STOP = re.compile(r"(?<=[。！？])(?=.)")
_SPACE = re.compile(r"[^\S\n]")  # sentencex 1.0.32 panics on some white space beyond ASCII.


def sentence_starts(text: str, language: str) -> list[int]:
    """Offsets at which sentences (and the white space before them) start, ascending. A line break ends a sentence.

    Args:
        text: Any.
        language: ISO 639 code for the sentence rules.
    """
    starts, offset = [], 0
    for line in _SPACE.sub(" ", text).splitlines(keepends=True):
        for sentence in sentencex.segment(language, line):
            starts.append(offset)
            starts.extend(offset + match.start() for match in _WIDE_STOP.finditer(sentence))
            offset += len(sentence)
    return starts


def split_sentences(text: str, language: str) -> list[str]:
    """The sentences of a passage, at most `MAX_SENTENCES` of about equal numbers; [] when it is a single one."""
    bounds = [*sentence_starts(text, language), len(text)]
    spans = [(start, end) for start, end in pairwise(bounds) if text[start:end].strip()]
    size = -(-len(spans) // MAX_SENTENCES)
    grouped = [spans[first : first + size] for first in range(0, len(spans), max(1, size))]
    return [text[group[0][0] : group[-1][1]].strip() for group in grouped] if len(grouped) > 1 else []
