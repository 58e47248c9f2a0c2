"""A segment: a FAISS index that nobody changes, which of its rows still live, and exact search among some of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever_service.collection import Rows, Vectors
from retriever_service.dense.factory import CANDIDATES, EXACT
from retriever_service.dense.library import load_faiss
from retriever_service.dense_index import FloatScores, Hits, empty_hits, keep_first, positions_of

_MIN_SLICE = 20_000  # Rows; a millisecond of exact search.

Stored = npt.NDArray[np.float32] | npt.NDArray[np.float16]


class _Range:
    """A range of an exact index's vectors."""

    def __init__(self, vectors: Stored) -> None:
        self._vectors = vectors

    def search(self, queries: Vectors, count: int) -> tuple[FloatScores, npt.NDArray[np.int64]]:
        """Scores and positions, (B, count) each."""
        faiss = load_faiss()
        found: tuple[FloatScores, npt.NDArray[np.int64]]
        found = faiss.knn(queries, self._vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
        return found


@dataclass(frozen=True, slots=True)
class Segment:
    """The vectors of the rows in (after, up_to], by position. Any thread may search.

    Attributes:
        name: Of its files.
        after: Below its first row.
        up_to: Its last row, or above.
        index: The FAISS index, mapped from its file: never added to.
        searcher: What searches it: itself, or its copy on a GPU.
        rows: (N,), ascending.
        is_live: (N,); a change makes a new one.
        num_live: How many live.
        factory: The index's factory string.
        parameters: What it is searched with.
        recall: Recall@10 against exact search.
        stored: (N, D) the vectors as far as the index keeps them; None where it only keeps codes.
    """

    name: str
    after: int
    up_to: int
    index: Any
    searcher: Any
    rows: Rows
    is_live: npt.NDArray[np.bool_]
    num_live: int
    factory: str
    parameters: str
    recall: float
    stored: Stored | None

    def without(self, rows: Iterable[int]) -> Segment:
        """The segment with these rows dead; absent ones are no error."""
        positions = positions_of(self.rows, np.fromiter(rows, np.int64))
        if not self.is_live[positions].any():
            return self
        is_live = self.is_live.copy()
        is_live[positions] = False
        return replace(self, is_live=is_live, num_live=int(is_live.sum()))

    def slices(self, num: int) -> list[Segment]:
        """The segment in up to so many ranges of rows, where it is exact and large enough."""
        num = min(num, len(self.rows) // _MIN_SLICE)
        if num < 2 or self.factory != EXACT or self.searcher is not self.index or self.stored is None:
            return [self]
        slices = []
        for rows, is_live, stored in zip(
            *(np.array_split(one, num) for one in (self.rows, self.is_live, self.stored)), strict=True
        ):
            index = _Range(stored)
            num_live = int(is_live.sum())
            changed = replace(self, index=index, searcher=index, rows=rows, is_live=is_live, num_live=num_live)
            slices.append(changed)
        return slices

    def search(self, queries: Vectors, count: int) -> Hits:
        """The `count` best live rows for each of (B, D) queries, as far as the index finds them.

        Dead rows are found too and dropped, and more is fetched where that leaves too few.
        """
        if not self.num_live:
            return empty_hits(len(queries), count)
        load_faiss()
        wanted = min(count if self.factory == EXACT else max(count, CANDIDATES), self.num_live)
        num_dead = len(self.rows) - self.num_live
        most = min(len(self.rows), getattr(self.searcher, "max_found", len(self.rows)))
        fetched = min(wanted + min(num_dead, wanted), most)
        while True:
            scores, positions = self._find(queries, fetched)
            if not num_dead and fetched >= count and positions[:, -1].min() >= 0:  # As it mostly is: nothing to drop.
                return Hits(self.rows[positions[:, :count]], scores[:, :count])
            is_found = positions >= 0
            keep = is_found & self.is_live[positions]
            is_enough = keep.sum(axis=1) >= min(count, self.num_live)
            if "IVF" not in self.factory:  # Lists not looked into hold more; a graph that has come to its end does not.
                is_enough |= ~is_found[:, -1]
            if fetched == most or is_enough.all():
                return keep_first(self.rows[positions], scores, keep, count)
            fetched = min(2 * fetched, most)

    def _find(self, queries: Vectors, count: int) -> tuple[FloatScores, npt.NDArray[np.int64]]:
        """What the index finds; where more is asked for than it was calibrated for, it looks into more lists."""
        found: tuple[FloatScores, npt.NDArray[np.int64]]
        wider = count // CANDIDATES
        parameters = _wider(self.index, wider) if wider > 1 and "IVF" in self.factory else None
        if parameters is not None and self.searcher is self.index:
            found = self.index.search(queries, count, params=parameters)
        else:
            found = self.searcher.search(queries, count)
        return found

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The best among ascending `rows` alone, exactly. Only where vectors are stored."""
        assert self.stored is not None
        positions = positions_of(self.rows, rows)
        positions = positions[self.is_live[positions]]
        return nearest_among(self.rows[positions], self.stored[positions].astype(np.float32), queries, count)


def _wider(index: Any, factor: int) -> Any:
    """Search parameters with so many times the lists that the index looks into; None where it has no lists."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(index.nlist, index.nprobe * factor))
    if isinstance(index, faiss.IndexRefine) and (inner := _wider(index.base_index, factor)) is not None:
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexPreTransform) and (inner := _wider(index.index, factor)) is not None:
        return faiss.SearchParametersPreTransform(index_params=inner)
    return None


def nearest_among(rows: Rows, vectors: Vectors, queries: Vectors, count: int) -> Hits:
    """The best of (N, D) vectors for each of (B, D) queries."""
    if not len(rows):
        return empty_hits(len(queries), count)
    faiss = load_faiss()
    found: tuple[FloatScores, npt.NDArray[np.int64]]
    found = faiss.knn(queries, vectors, min(count, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
    scores, positions = found
    return keep_first(rows[positions], scores, np.ones_like(positions, bool), count)


def stored_vectors(index: Any, dim: int) -> Stored | None:
    """The (N, D) vectors inside a FAISS index, without a copy; None where it does not keep them as such."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        index = faiss.downcast_index(index.refine_index)
    if isinstance(index, faiss.IndexFlat):
        dtype: type[np.float32] | type[np.float16] = np.float32
    elif isinstance(index, faiss.IndexScalarQuantizer) and index.sq.qtype == faiss.ScalarQuantizer.QT_fp16:
        dtype = np.float16
    else:
        return None
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    stored: Stored = codes.view(dtype).reshape(index.ntotal, dim)
    return stored
