"""Words that an answer must contain, as bookkeeping over token ids: which are there, how many tokens are missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TokenIds = Sequence[int]
Spellings = tuple[tuple[int, ...], ...]
"""The token sequences that write one word; any of them will do."""
_Place = tuple[int, tuple[int, ...], int]
"""A word, one of its spellings, and how many of its tokens are written once the place's token is."""


@dataclass(frozen=True, slots=True)
class ForcedWords:
    """The words of one request, none of them part of another. `present` below are indices of words already written."""

    words: tuple[Spellings, ...] = ()
    _shortest: tuple[int, ...] = field(init=False, repr=False)
    _places: Mapping[int, Sequence[_Place]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places: dict[int, list[_Place]] = {}
        for w, word in enumerate(self.words):
            for spelling in word:
                for length, token in enumerate(spelling, start=1):
                    places.setdefault(token, []).append((w, spelling, length))
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_shortest", tuple(min(map(len, word)) for word in self.words))

    @classmethod
    def of(cls, words: Sequence[Spellings]) -> "ForcedWords":
        """Leaves out the words that another one contains."""
        kept: list[Spellings] = []
        for i, word in enumerate(words):
            others = [*kept, *words[i + 1 :]]
            if not any(_is_part(word, other) for other in others):
                kept.append(word)
        return cls(tuple(kept))

    @property
    def num_tokens(self) -> int:
        """The fewest tokens that write every word, one after the other."""
        return sum(self._shortest)

    def are_in(self, ids: TokenIds) -> bool:
        """Whether every word occurs."""
        return all(any(_contains(ids, spelling) for spelling in word) for word in self.words)

    def present_after(self, present: frozenset[int], ids: TokenIds) -> frozenset[int]:
        """The words present in `ids`, given those present before its last token."""
        new = {w for w, spelling, length in self._begun(present, ids) if length == len(spelling)}
        return present | new if new else present

    def num_missing(self, present: frozenset[int], ids: TokenIds) -> int:
        """The fewest tokens that complete every word; at most one of them may be under way at the end of `ids`."""
        total = sum(length for w, length in enumerate(self._shortest) if w not in present)
        saved = (self._shortest[w] - len(spelling) + length for w, spelling, length in self._begun(present, ids))
        return total - max([0, *saved])

    def next_tokens(self, present: frozenset[int], ids: TokenIds) -> set[int]:
        """The tokens that begin or continue a missing word."""
        first = {spelling[0] for w, word in enumerate(self.words) if w not in present for spelling in word}
        return first | {spelling[length] for _, spelling, length in self._begun(present, ids)}

    def _begun(self, present: frozenset[int], ids: TokenIds) -> Iterator[_Place]:
        """The spellings of missing words that `ids` ends with the beginning of, and its length."""
        for place in self._places.get(ids[-1], ()) if ids else ():
            w, spelling, length = place
            if w not in present and tuple(ids[-length:]) == spelling[:length]:
                yield place


def _contains(ids: TokenIds, wanted: tuple[int, ...]) -> bool:
    return any(tuple(ids[start : start + len(wanted)]) == wanted for start in range(len(ids) - len(wanted) + 1))


def _is_part(word: Spellings, other: Spellings) -> bool:
    """Whether every spelling of the other word contains the word."""
    return all(any(_contains(longer, spelling) for spelling in word) for longer in other)
