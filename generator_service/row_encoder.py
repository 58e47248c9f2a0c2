"""Encodes rows as seldom as possible: not those whose states are cached, and equal ones of a batch once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from generator_service.encoder_cache import EncoderCache, Key
from generator_service.models.base import EncodedRow, Seq2SeqModel


@dataclass(frozen=True, slots=True)
class Row:
    """An encoder input and what identifies it."""

    key: Key
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class EncoderWork:
    """What a batch took: hits are rows that were cached, or equal to another of the batch; the rest was encoded."""

    num_hits: int
    num_rows: int
    num_tokens: int
    num_padded_tokens: int
    num_evictions: int
    cache_bytes: int


class RowEncoder:
    """A model's encoder behind a cache. Belongs to the model's thread."""

    def __init__(self, model: Seq2SeqModel, cache: EncoderCache) -> None:
        self._model = model
        self._cache = cache

    def rows(self, inputs: Sequence[Sequence[int]]) -> list[Row]:
        """Encoder inputs with their keys."""
        return [Row(self._cache.key(token_ids), token_ids) for token_ids in inputs]

    def cost(self, rows: Iterable[Row]) -> int:
        """Tokens that encoding all these rows would take now."""
        lengths = {row.key: len(row.token_ids) for row in rows}
        return sum(length for key, length in lengths.items() if key not in self._cache)

    def encode(self, rows: Sequence[Row]) -> tuple[list[EncodedRow], EncoderWork]:
        """The states of rows, in their order; equal rows share theirs."""
        distinct = {row.key: row.token_ids for row in rows}
        found = {key: states for key in distinct if (states := self._cache.get(key)) is not None}
        missing = {key: token_ids for key, token_ids in distinct.items() if key not in found}
        padded, evicted = self._num_padded_tokens, self._cache.num_evictions
        if missing:
            for key, states in zip(missing, self._model.encode(list(missing.values())), strict=True):
                found[key] = states
                self._cache.put(key, states)
        work = EncoderWork(
            num_hits=len(rows) - len(missing),
            num_rows=len(missing),
            num_tokens=sum(map(len, missing.values())),
            num_padded_tokens=self._num_padded_tokens - padded,
            num_evictions=self._cache.num_evictions - evicted,
            cache_bytes=self._cache.num_bytes,
        )
        return [found[row.key] for row in rows], work

    @property
    def _num_padded_tokens(self) -> int:
        return self._model.counters.get("padded_tokens", 0)
