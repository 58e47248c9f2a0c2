"""Nearest vectors by inner product. A seam: segments, quantised and GPU indexes stand behind the same protocol."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retriever_service.collection import Rows, Vectors

_DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
_MIN_CAPACITY = 1_024
_COMPACT_RATIO = 0.2  # Of removed among all: above it the index is written anew.
_ABSENT = -1
_MIN_GEMM_THRESHOLD = 1_000


@dataclass(frozen=True, slots=True)
class Hits:
    """The best of B queries, best first. Where fewer than k match, rows end in -1 and scores in -inf."""

    rows: npt.NDArray[np.int64]  # (B, k)
    scores: npt.NDArray[np.float32]  # (B, k)


class DenseIndex(Protocol):
    """Rows by the inner product of their vectors with a query's. Search while another thread changes it."""

    @property
    def kind(self) -> str:
        """Which index it is, e.g. "exact"."""
        ...

    @property
    def num_vectors(self) -> int:
        """Live vectors."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        ...

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Adds rows above every row added before; a row that is there already is skipped. One thread changes."""
        ...

    def remove(self, rows: Iterable[int]) -> None:
        """Removes rows; absent ones are no error. One thread changes."""
        ...

    def search(self, queries: Vectors, count: int) -> Hits:
        """The `count` best live rows for each of (B, D) queries."""
        ...

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The same, exactly, among `rows` alone; for filters that leave few."""
        ...


@dataclass(frozen=True, slots=True)
class _State:
    """What searches see: replaced as a whole, never changed where a search may look."""

    buffer: Vectors  # (capacity, D); entries from num_stored on are the writer's
    rows: Rows  # (capacity,), ascending
    is_live: npt.NDArray[np.bool_]  # (capacity,)
    num_stored: int
    num_live: int


class ExactIndex:
    """FAISS's exact search over a growing array.

    Searches take no lock: the writer fills entries that no published state covers, then publishes a new state.
    """

    kind = "exact"

    def __init__(self, dim: int) -> None:
        """Makes an empty index of (D,) vectors."""
        self._faiss = load_faiss()
        use_gemm_from_small_batches(dim)
        self._dim = dim
        self._state = self._empty(_MIN_CAPACITY)

    @property
    def num_vectors(self) -> int:
        """Live vectors."""
        return self._state.num_live

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        state = self._state
        return state.buffer.nbytes + state.rows.nbytes + state.is_live.nbytes

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Adds rows above every row added before; a row that is there already is skipped."""
        state = self._state
        last = int(state.rows[state.num_stored - 1]) if state.num_stored else _ABSENT
        is_new = rows > last
        rows, vectors = rows[is_new], vectors[is_new]
        if not len(rows):
            return
        end = state.num_stored + len(rows)
        if end > len(state.buffer):
            state = self._grown(state, max(end, 2 * len(state.buffer)))
        state.buffer[state.num_stored : end] = vectors
        state.rows[state.num_stored : end] = rows
        state.is_live[state.num_stored : end] = True
        self._state = _State(state.buffer, state.rows, state.is_live, end, state.num_live + len(rows))

    def remove(self, rows: Iterable[int]) -> None:
        """Removes rows; absent ones are no error. Above a fifth of removed rows the index is compacted."""
        state = self._state
        positions = _positions(state, np.fromiter(rows, np.int64))
        positions = np.unique(positions[state.is_live[positions]])
        if not len(positions):
            return
        is_live = state.is_live.copy()
        is_live[positions] = False
        state = _State(state.buffer, state.rows, is_live, state.num_stored, state.num_live - len(positions))
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
        return _keep(state.rows[positions], scores, is_live, count)

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The same, exactly, among `rows` alone."""
        state = self._state
        positions = np.unique(_positions(state, rows))
        positions = positions[state.is_live[positions]]
        scores, chosen = self._nearest(queries, state.buffer[positions], min(count, len(positions)))
        return _keep(state.rows[positions[chosen]], scores, np.ones_like(chosen, bool), count)

    def _nearest(
        self, queries: Vectors, vectors: Vectors, count: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        if not count:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        scores, positions = self._faiss.knn(queries, vectors, count, metric=self._faiss.METRIC_INNER_PRODUCT)
        return scores, positions

    def _empty(self, capacity: int) -> _State:
        return _State(
            np.zeros((capacity, self._dim), np.float32), np.zeros(capacity, np.int64), np.zeros(capacity, bool), 0, 0
        )

    def _grown(self, state: _State, capacity: int) -> _State:
        """The same content in larger arrays."""
        grown = self._empty(capacity)
        for old, new in ((state.buffer, grown.buffer), (state.rows, grown.rows), (state.is_live, grown.is_live)):
            new[: state.num_stored] = old[: state.num_stored]
        return _State(grown.buffer, grown.rows, grown.is_live, state.num_stored, state.num_live)

    def _compacted(self, state: _State) -> _State:
        """The live content alone."""
        live = np.flatnonzero(state.is_live[: state.num_stored])
        compacted = self._empty(max(_MIN_CAPACITY, len(live) + len(live) // 4))
        compacted.buffer[: len(live)] = state.buffer[live]
        compacted.rows[: len(live)] = state.rows[live]
        compacted.is_live[: len(live)] = True
        return _State(compacted.buffer, compacted.rows, compacted.is_live, len(live), len(live))


def load_faiss() -> Any:
    """The faiss module, single-threaded: searches run in threads of ours.

    Raises:
        RuntimeError: When not exactly one faiss distribution is installed; they overwrite each other's files silently.
    """
    installed = []
    for name in _DISTRIBUTIONS:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(installed) != 1:
        found = ", ".join(installed) or "none"
        raise RuntimeError(
            f"exactly one of {', '.join(_DISTRIBUTIONS)} must be installed, found {found}: "
            "uninstall all of them, then install rag-serving[cpu] or rag-serving[gpu]"
        )
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss


def use_gemm_from_small_batches(dim: int) -> None:
    """Has FAISS use its matrix product from 4 queries on (process-wide, for the largest D seen).

    By default it starts at 334 queries of 384 dimensions; at 32 queries this takes 0.95 ms instead of 5.8 per query
    over 100k vectors (one core of an x86-64 server). For single queries the plain loop stays faster.
    """
    faiss = load_faiss()
    present = faiss.cvar.distance_compute_blas_threshold
    if present < _MIN_GEMM_THRESHOLD:  # Older releases count queries here, and start at 20.
        return
    is_default = present > 100_000  # 128,000; ours is far below.
    faiss.cvar.distance_compute_blas_threshold = max(_MIN_GEMM_THRESHOLD, 4 * dim, 0 if is_default else present)


def _positions(state: _State, rows: Rows) -> npt.NDArray[np.intp]:
    """Positions of those rows that are stored."""
    stored = state.rows[: state.num_stored]
    positions = np.searchsorted(stored, rows)
    within = positions < state.num_stored
    positions, rows = positions[within], rows[within]
    found: npt.NDArray[np.intp] = positions[stored[positions] == rows]
    return found


def _keep(rows: Rows, scores: npt.NDArray[np.float32], keep: npt.NDArray[np.bool_], count: int) -> Hits:
    """The first `count` kept entries of each line, filled up with -1."""
    kept_rows = np.full((len(rows), count), _ABSENT, np.int64)
    kept_scores = np.full((len(rows), count), -np.inf, np.float32)
    for i in range(len(rows)):
        chosen = np.flatnonzero(keep[i])[:count]
        kept_rows[i, : len(chosen)] = rows[i, chosen]
        kept_scores[i, : len(chosen)] = scores[i, chosen]
    return Hits(kept_rows, kept_scores)
