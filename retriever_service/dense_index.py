"""Nearest vectors by inner product: the seam behind which exact, segmented, quantised and GPU indexes stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retriever_service.collection import CollectionSettings, Rows, Vectors

ABSENT = -1

FloatScores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hits:
    """The best of B queries, best first. Where fewer than k match, rows end in -1 and scores in -inf."""

    rows: npt.NDArray[np.int64]  # (B, k)
    scores: FloatScores  # (B, k)


class LoggedChange(Protocol):
    """An entry of the change log."""

    @property
    def sequence(self) -> int:
        """Its number."""
        ...

    @property
    def row(self) -> int:
        """What changed."""
        ...

    @property
    def operation(self) -> str:
        """How: added, removed or patched."""
        ...


class VectorSource(Protocol):
    """The truth that an index is derived from, as it is at one moment: a store's `Reader`."""

    def meta(self, key: str, default: str = "") -> str:
        """A value of the collection itself."""
        ...

    def last_sequence(self) -> int:
        """Number of the last change."""
        ...

    def num_passages(self) -> int:
        """How many vectors there are, or are to be."""
        ...

    def changes(self, after: int, limit: int) -> Sequence[LoggedChange]:
        """The log's next entries, oldest first."""
        ...

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """The vectors of those rows that exist: ascending rows (N,) and vectors (N, D)."""
        ...

    def scan_vectors(self, after: int = 0, up_to: int | None = None) -> Iterator[tuple[Rows, Vectors]]:
        """Vectors of the rows in (after, up_to], ascending, batch by batch."""
        ...

    def row_at(self, after: int, offset: int) -> int | None:
        """The row that has `offset` rows between itself and `after`; None beyond the last."""
        ...


OpenSource = Callable[[], AbstractContextManager[VectorSource]]


class VectorSearch(Protocol):
    """Rows by the inner product of their vectors with a query's."""

    def search(self, queries: Vectors, count: int) -> Hits:
        """The `count` best live rows for each of (B, D) queries."""
        ...

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The same, exactly, among `rows` alone; for filters that leave few."""
        ...


class DenseIndex(VectorSearch, Protocol):
    """What generations keep: an index that is searched while one other thread changes it."""

    @property
    def kind(self) -> str:
        """Which index it is: "exact", or a FAISS factory string."""
        ...

    @property
    def measured_recall(self) -> float:
        """Recall@10 against exact search, as measured when it was built; 1 for exact indexes."""
        ...

    @property
    def num_vectors(self) -> int:
        """Live vectors."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory held, mapped files included."""
        ...

    def load(self, source: VectorSource) -> None:
        """Brings an empty index to the source's state, from its own files where it has them. Once, first."""
        ...

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Adds rows above every row added before; a row that is there already is skipped. One thread changes."""
        ...

    def remove(self, rows: Iterable[int]) -> None:
        """Removes rows; absent ones are no error. One thread changes."""
        ...

    def close(self) -> None:
        """Ends work in the background; nobody may use the index any more."""
        ...


# The index of a generation: where it may keep files, what it is of, and how to read the store beside other readers.
MakeDenseIndex = Callable[[Path, CollectionSettings, OpenSource], DenseIndex]


def keep_first(rows: Rows, scores: FloatScores, keep: npt.NDArray[np.bool_], count: int) -> Hits:
    """The first `count` kept entries of each line of (B, k), filled up with -1."""
    kept_rows = np.full((len(rows), count), ABSENT, np.int64)
    kept_scores = np.full((len(rows), count), -np.inf, np.float32)
    for i in range(len(rows)):
        chosen = np.flatnonzero(keep[i])[:count]
        kept_rows[i, : len(chosen)] = rows[i, chosen]
        kept_scores[i, : len(chosen)] = scores[i, chosen]
    return Hits(kept_rows, kept_scores)


def merge_hits(parts: Sequence[Hits], count: int) -> Hits:
    """The `count` best of what several indexes found for the same queries."""
    if len(parts) == 1 and parts[0].rows.shape[1] == count:
        return parts[0]
    parts = [*parts, empty_hits(len(parts[0].rows), count)]  # Fills lines up where fewer match.
    rows = np.concatenate([part.rows for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    lines, order = np.arange(len(rows))[:, None], np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return Hits(rows[lines, order], scores[lines, order])


def empty_hits(num_queries: int, count: int) -> Hits:
    """Nothing found."""
    return Hits(np.full((num_queries, count), ABSENT), np.full((num_queries, count), -np.inf, np.float32))


def positions_of(stored: Rows, rows: Rows) -> npt.NDArray[np.intp]:
    """Positions in ascending `stored` of those rows that are in it."""
    positions = np.searchsorted(stored, rows)
    within = positions < len(stored)
    positions, rows = positions[within], rows[within]
    found: npt.NDArray[np.intp] = positions[stored[positions] == rows]
    return found
