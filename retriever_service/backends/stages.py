"""Both stages of a search in an engine, asked together and handed to `search.Search` one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retriever_service.backends.reader import RemoteReader
from retriever_service.backends.remote import RemoteStore, StageHits, StageQuery, rows_of
from retriever_service.collection import Rows, Scores, Vectors
from retriever_service.dense_index import ABSENT, Hits
from retriever_service.filters import Filter
from retriever_service.search import Mode, Plan, SearchQuery


class RemoteStages:
    """The candidates of every query of one request, from one round trip; it stands for both indexes."""

    def __init__(self, store: RemoteStore, reader: RemoteReader, queries: Sequence[SearchQuery], plan: Plan) -> None:
        """Asks the engine.

        Args:
            store: The collection.
            reader: Keeps the documents that come with the candidates.
            queries: With the words that are looked for alone.
            plan: How many candidates, and under which filter.
        """
        self._store, self._matching = store, matching_of(plan)
        count = plan.num_candidates
        dense = [StageQuery(count, query.vector) for query in queries if query.vector is not None]
        texts = list(dict.fromkeys(query.text for query in queries if query.mode is not Mode.DENSE))
        found = store.search(dense + [StageQuery(count, text=text) for text in texts], self._matching)
        for hits in found:
            reader.keep(hits.documents)
        self._dense = found[: len(dense)]
        self._lexical = dict(zip(texts, found[len(dense) :], strict=True))

    def search(self, queries: Vectors, count: int) -> Hits:
        """The dense candidates of the (B, D) queries that were given."""
        rows = np.full((len(self._dense), count), ABSENT, np.int64)
        scores = np.full((len(self._dense), count), -np.inf, np.float32)
        for i, hits in enumerate(self._dense):
            rows[i, : len(hits.documents)] = rows_of(hits.documents)
            scores[i, : len(hits.documents)] = hits.scores
        return Hits(rows, scores)

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The same: filters are the engine's."""
        return self.search(queries, count)

    def candidates(self, text: str) -> tuple[Rows, Scores]:
        """The lexical candidates of a text that was given."""
        hits = self._lexical[text]
        return rows_of(hits.documents), hits.scores

    def scores(self, text: str, rows: Rows) -> Scores:
        """The lexical score of each of `rows`; 0 where no word matches."""
        if not len(rows):
            return np.empty(0)
        query = StageQuery(len(rows), text=text, among=tuple(rows.tolist()))
        (hits,) = self._store.search([query], self._matching)
        known = _by_row(hits)
        return np.array([known.get(row, 0.0) for row in rows.tolist()], np.float64)


class LexicalStages:
    """The lexical half of `RemoteStages`."""

    def __init__(self, stages: RemoteStages) -> None:
        self._stages = stages

    def search(self, text: str, count: int, among: Rows | None = None) -> tuple[Rows, Scores]:
        """The candidates that came with the request's one round trip."""
        return self._stages.candidates(text)

    def scores(self, text: str, rows: Rows) -> Scores:
        """The score of each of `rows`; 0 where no word matches."""
        return self._stages.scores(text, rows)


def matching_of(plan: Plan) -> Filter | None:
    """The plan's filter."""
    return None if plan.condition is None else plan.condition.matching


def _by_row(hits: StageHits) -> dict[int, float]:
    return dict(zip(rows_of(hits.documents).tolist(), hits.scores.tolist(), strict=True))
