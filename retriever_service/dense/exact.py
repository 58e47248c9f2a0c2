"""Exact search over a growing array in memory: what small collections need, and the newest rows of large ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retriever_service.collection import Rows, Vectors
from retriever_service.dense.library import load_faiss, use_gemm_from_small_batches
from retriever_service.dense_index import FloatScores, Hits, VectorSource, keep_first, positions_of

_MIN_CAPACITY = 1_024
_COMPACT_RATIO = 0.2  # Of removed among all: above it the index is written anew.


@dataclass(frozen=True, slots=True)
class _State:
    """What searches see: replaced as a whole, never changed where a search may look."""

    buffer: Vectors  # (capacity, D); entries from num_stored on are the writer's
    all_rows: Rows  # (capacity,), ascending
    is_live: npt.NDArray[np.bool_]  # (capacity,)
    num_stored: int
    num_live: int

    @property
    def rows(self) -> Rows:
        """(num_stored,)."""
        return self.all_rows[: self.num_stored]


class ExactIndex:
    """FAISS's exact search over a growing array.

    Searches take no lock: the writer fills entries that no published state covers, then publishes a new state.
    """

    kind, measured_recall = "exact", 1.0

    def __init__(self, dim: int, *, after: int = 0) -> None:
        """Makes an empty index of (D,) vectors, which takes rows above `after`."""
        use_gemm_from_small_batches(dim)
        self._dim, self._after = dim, after
        self._state = self._empty(_MIN_CAPACITY)

    @property
    def num_vectors(self) -> int:
        """Live vectors."""
        return self._state.num_live

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        state = self._state
        return state.buffer.nbytes + state.all_rows.nbytes + state.is_live.nbytes

    def load(self, source: VectorSource) -> None:
        """Adds everything there is."""
        for rows, vectors in source.scan_vectors():
            self.add(rows, vectors)

    def close(self) -> None:
        """Nothing runs in the background."""

    def live_after(self, row: int) -> tuple[Rows, Vectors]:
        """Live rows above `row`, and their vectors."""
        state = self._state
        chosen = np.flatnonzero(state.is_live[: state.num_stored] & (state.rows > row))
        return state.rows[chosen], state.buffer[chosen]

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Adds rows above every row added before; a row that is there already is skipped."""
        state = self._state
        last = int(state.rows[-1]) if state.num_stored else self._after
        is_new = rows > last
        rows, vectors = rows[is_new], vectors[is_new]
        if not len(rows):
            return
        end = state.num_stored + len(rows)
        if end > len(state.buffer):
            state = self._grown(state, max(end, 2 * len(state.buffer)))
        state.buffer[state.num_stored : end] = vectors
        state.all_rows[state.num_stored : end] = rows
        state.is_live[state.num_stored : end] = True
        self._state = _State(state.buffer, state.all_rows, state.is_live, end, state.num_live + len(rows))

    def remove(self, rows: Iterable[int]) -> None:
        """Removes rows; absent ones are no error. Above a fifth of removed rows the index is compacted."""
        state = self._state
        positions = positions_of(state.rows, np.fromiter(rows, np.int64))
        positions = np.unique(positions[state.is_live[positions]])
        if not len(positions):
            return
        is_live = state.is_live.copy()
        is_live[positions] = False
        state = _State(state.buffer, state.all_rows, is_live, state.num_stored, state.num_live - len(positions))
        num_removed = state.num_stored - state.num_live
        if num_removed > max(_MIN_CAPACITY, _COMPACT_RATIO * state.num_stored):
            state = self._compacted(state)
        self._state = state

    def search(self, queries: Vectors, count: int) -> Hits:
        """The `count` best live rows for each of (B, D) queries.

        Removed rows are found too and dropped, and more is fetched where that leaves too few: an ID selector inside
        FAISS would switch off its matrix product (9 times slower in batches).
        """
        state = self._state
        wanted = min(count, state.num_live)
        num_removed = state.num_stored - state.num_live
        fetched = min(wanted + min(num_removed, wanted), state.num_stored)
        while True:
            scores, positions = self._nearest(queries, state.buffer[: state.num_stored], fetched)
            is_live = state.is_live[positions]
            if fetched == state.num_stored or bool(np.all(is_live.sum(axis=1) >= wanted)):
                break
            fetched = min(2 * fetched, state.num_stored)
        return keep_first(state.rows[positions], scores, is_live, count)

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The same, exactly, among `rows` alone."""
        state = self._state
        positions = np.unique(positions_of(state.rows, rows))
        positions = positions[state.is_live[positions]]
        scores, chosen = self._nearest(queries, state.buffer[positions], min(count, len(positions)))
        return keep_first(state.rows[positions[chosen]], scores, np.ones_like(chosen, bool), count)

    def _nearest(self, queries: Vectors, vectors: Vectors, count: int) -> tuple[FloatScores, npt.NDArray[np.int64]]:
        if not count:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        faiss = load_faiss()
        scores, positions = faiss.knn(queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, positions

    def _empty(self, capacity: int) -> _State:
        buffer = np.zeros((capacity, self._dim), np.float32)
        return _State(buffer, np.zeros(capacity, np.int64), np.zeros(capacity, bool), 0, 0)

    def _grown(self, state: _State, capacity: int) -> _State:
        """The same content in larger arrays."""
        grown = self._empty(capacity)
        for old, new in (
            (state.buffer, grown.buffer),
            (state.all_rows, grown.all_rows),
            (state.is_live, grown.is_live),
        ):
            new[: state.num_stored] = old[: state.num_stored]
        return _State(grown.buffer, grown.all_rows, grown.is_live, state.num_stored, state.num_live)

    def _compacted(self, state: _State) -> _State:
        """The live content alone."""
        live = np.flatnonzero(state.is_live[: state.num_stored])
        compacted = self._empty(max(_MIN_CAPACITY, len(live) + len(live) // 4))
        compacted.buffer[: len(live)] = state.buffer[live]
        compacted.all_rows[: len(live)] = state.rows[live]
        compacted.is_live[: len(live)] = True
        return _State(compacted.buffer, compacted.all_rows, compacted.is_live, len(live), len(live))
