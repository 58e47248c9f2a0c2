"""What each stage contributes to a search: its best rows among those that match the filter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from retriever_service.collection import Rows, Scores, Vectors
from retriever_service.dense_index import VectorSearch
from retriever_service.filters import Condition
from retriever_service.store import Reader

# A filter that leaves fewer passages is searched exactly among them; one that leaves more is applied to candidates,
# of which more are fetched until enough match. Gathering 10k vectors of 384 dimensions takes about 2 ms.
_MAX_EXACT_ROWS = 10_000
_OVER_FETCH = 4


class LexicalStage(Protocol):
    """Rows by the words they share with a query."""

    def search(self, text: str, count: int, among: Rows | None = None) -> tuple[Rows, Scores]:
        """The `count` best rows, best first, with their scores; only of `among`, where given."""
        ...

    def scores(self, text: str, rows: Rows) -> Scores:
        """The score of each of `rows`; 0 where no word matches."""
        ...


class Candidates:
    """Asks the stages for one request. They may be ahead of the reader's state or behind it."""

    def __init__(
        self, reader: Reader, dense: VectorSearch, lexical: LexicalStage, *, count: int, condition: Condition | None
    ) -> None:
        """Prepares.

        Args:
            reader: Decides what matches the filter.
            dense: The dense stage.
            lexical: The lexical stage.
            count: Rows of each stage.
            condition: What passages must match; None is everything.
        """
        self._reader, self._dense, self._lexical = reader, dense, lexical
        self._count, self._condition = count, condition
        self._few: Rows | None = None  # The rows that match the filter, when they are few.
        if condition is not None:
            rows = reader.matching_rows(condition, _MAX_EXACT_ROWS + 1)
            self._few = rows if len(rows) <= _MAX_EXACT_ROWS else None

    def dense(self, vectors: Sequence[Vectors | None]) -> list[Rows]:
        """Each query's rows by its vector (D,), best first; none where there is no vector."""
        candidates = [np.empty(0, np.int64) for _ in vectors]
        chosen = [i for i, vector in enumerate(vectors) if vector is not None]
        if not chosen:
            return candidates
        given = np.stack([vector for vector in vectors if vector is not None])
        if self._few is not None:
            found = self._dense.search_among(given, self._few, self._count).rows
        elif self._condition is None:
            found = self._dense.search(given, self._count).rows
        else:
            for i, vector in zip(chosen, given, strict=True):
                candidates[i] = self._over_fetch(functools.partial(self._nearest, vector[None]), self._condition)
            return candidates
        for i, rows in zip(chosen, found, strict=True):
            candidates[i] = _present(rows)
        return candidates

    def lexical(self, text: str) -> tuple[Rows, Scores]:
        """A query's rows by its text, best first, with their scores."""
        if self._few is not None or self._condition is None:
            return self._lexical.search(text, self._count, self._few)
        rows = self._over_fetch(lambda count: self._lexical.search(text, count)[0], self._condition)
        return rows, self._lexical.scores(text, rows)

    def _nearest(self, vector: Vectors, count: int) -> Rows:
        return _present(self._dense.search(vector, count).rows[0])

    def _over_fetch(self, find: Callable[[int], Rows], condition: Condition) -> Rows:
        """The first of what `find` finds that match the filter, or all that do."""
        fetched = self._count * _OVER_FETCH
        while True:
            rows = find(fetched)
            matching = rows[np.isin(rows, self._reader.keep_matching(rows, condition))]
            if len(matching) >= self._count or len(rows) < fetched:
                return matching[: self._count]
            fetched *= _OVER_FETCH


def _present(rows: Rows) -> Rows:
    return rows[rows >= 0]
