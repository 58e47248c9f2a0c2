"""One search over one consistent state: candidates of both stages, exact scores, fusion, passages. Synchronous."""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retriever_service.collection import Passage, Rows, Scores, Vectors
from retriever_service.dense_index import DenseIndex
from retriever_service.filters import Condition
from retriever_service.fusion import Fusion, FusionMethod, best, linear, log_prior, reciprocal_rank
from retriever_service.lexical_index import LexicalIndex
from retriever_service.store import Reader

# A filter that leaves fewer passages is searched exactly among them; one that leaves more is applied to candidates,
# of which more are fetched until enough match. Gathering 10k vectors of 384 dimensions takes about 2 ms.
_MAX_EXACT_ROWS = 10_000
_OVER_FETCH = 4


class Mode(enum.StrEnum):
    """Which stages look for passages."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A query ready for its mode's stages: `vector` (D,) float32 unless LEXICAL, `text` unless DENSE."""

    mode: Mode
    text: str
    vector: Vectors | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a request's queries are searched, every default filled in.

    Attributes:
        top_k: Passages returned at most.
        num_candidates: Hits each stage contributes before fusion.
        fusion: How stages are weighed.
        temperature: tau of the log prior.
        min_score: Hits whose final score is lower are dropped.
        condition: What passages must match; None is everything.
        with_vectors: Whether hits carry their stored vector.
    """

    top_k: int
    num_candidates: int
    fusion: Fusion
    temperature: float
    min_score: float = -np.inf
    condition: Condition | None = None
    with_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage as one query found it. A stage that the mode leaves out has no score."""

    passage: Passage
    score: float
    dense_score: float | None
    lexical_score: float | None
    log_prior: float
    vector: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of each query, best first, and how long the stages took in seconds."""

    hits: tuple[tuple[Hit, ...], ...]
    search_seconds: float
    fetch_seconds: float


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A query's best rows, best first, with their scores."""

    rows: Rows
    scores: Scores
    dense: Scores | None
    lexical: Scores | None
    log_prior: Scores


class Search:
    """Searches one state of a collection for one request."""

    def __init__(self, reader: Reader, dense: DenseIndex, lexical: LexicalIndex, plan: Plan) -> None:
        """Prepares a search.

        Args:
            reader: The consistent state that decides what exists and what matches the filter. The indexes may be
                ahead of it or behind it.
            dense: The dense index.
            lexical: The lexical index.
            plan: How to search.
        """
        self._reader, self._dense, self._lexical, self._plan = reader, dense, lexical, plan
        self._few: Rows | None = None  # The rows that match the filter, when they are few.
        if plan.condition is not None:
            rows = reader.matching_rows(plan.condition, _MAX_EXACT_ROWS + 1)
            self._few = rows if len(rows) <= _MAX_EXACT_ROWS else None

    def run(self, queries: Sequence[SearchQuery]) -> Found:
        """Finds the passages for each query."""
        started = time.monotonic()
        dense = self._dense_candidates(queries)
        lexical = [self._lexical_candidates(query) for query in queries]
        rows, vectors = self._existing(dense + [rows for rows, _ in lexical])
        ranked = [self._rank(query, dense[i], lexical[i], rows, vectors) for i, query in enumerate(queries)]
        searched = time.monotonic()
        hits = self._fetch(ranked, rows, vectors)
        return Found(hits, searched - started, time.monotonic() - searched)

    def _dense_candidates(self, queries: Sequence[SearchQuery]) -> list[Rows]:
        """Rows of each query's dense stage, best first; empty where the mode has none."""
        candidates = [np.empty(0, np.int64) for _ in queries]
        chosen = [i for i, query in enumerate(queries) if query.vector is not None]
        if not chosen:
            return candidates
        count = self._plan.num_candidates
        vectors = np.stack([query.vector for query in queries if query.vector is not None])
        if self._few is not None:
            found = self._dense.search_among(vectors, self._few, count).rows
        elif self._plan.condition is None:
            found = self._dense.search(vectors, count).rows
        else:
            for i, vector in zip(chosen, vectors, strict=True):
                candidates[i] = self._over_fetch(functools.partial(self._nearest, vector[None]))
            return candidates
        for i, rows in zip(chosen, found, strict=True):
            candidates[i] = _present(rows)
        return candidates

    def _nearest(self, vector: Vectors, count: int) -> Rows:
        return _present(self._dense.search(vector, count).rows[0])

    def _lexical_candidates(self, query: SearchQuery) -> tuple[Rows, Scores]:
        if query.mode is Mode.DENSE:
            return np.empty(0, np.int64), np.empty(0)
        if self._few is not None or self._plan.condition is None:
            return self._lexical.search(query.text, self._plan.num_candidates, self._few)
        rows = self._over_fetch(lambda n: self._lexical.search(query.text, n)[0])
        return rows, self._lexical.scores(query.text, rows)

    def _over_fetch(self, find: Callable[[int], Rows]) -> Rows:
        """The first `num_candidates` of what `find` finds that match the filter, or all that do."""
        assert self._plan.condition is not None
        count = self._plan.num_candidates
        fetched = count * _OVER_FETCH
        while True:
            rows = find(fetched)
            matching = rows[np.isin(rows, self._reader.keep_matching(rows, self._plan.condition))]
            if len(matching) >= count or len(rows) < fetched:
                return matching[:count]
            fetched *= _OVER_FETCH

    def _existing(self, candidates: Sequence[Rows]) -> tuple[Rows, Vectors]:
        """Ascending rows (N,) of all candidates that exist and match in this state, and their vectors (N, D)."""
        rows = np.unique(np.concatenate(candidates))
        if self._plan.condition is not None:
            rows = self._reader.keep_matching(rows, self._plan.condition)
        return self._reader.vectors(rows)

    def _rank(
        self, query: SearchQuery, dense: Rows, lexical: tuple[Rows, Scores], existing: Rows, vectors: Vectors
    ) -> _Ranked:
        rows = np.intersect1d(np.union1d(dense, lexical[0]), existing)
        dense_scores = lexical_scores = None
        if query.vector is not None:  # Exact: from the stored float32 vectors, summed in float64.
            chosen = vectors[np.searchsorted(existing, rows)].astype(np.float64)
            dense_scores = chosen @ query.vector.astype(np.float64) if len(rows) else np.empty(0)
        if query.mode is not Mode.DENSE:
            lexical_scores = self._lexical_scores(query, rows, lexical)
        scores, prior_scores = self._fuse(rows, dense_scores, lexical_scores, dense, lexical[0])
        order = best(scores, rows, self._plan.top_k)
        order = order[scores[order] >= self._plan.min_score]
        return _Ranked(
            rows[order],
            scores[order],
            None if dense_scores is None else dense_scores[order],
            None if lexical_scores is None else lexical_scores[order],
            log_prior(prior_scores[order], self._plan.temperature),
        )

    def _lexical_scores(self, query: SearchQuery, rows: Rows, found: tuple[Rows, Scores]) -> Scores:
        """The lexical score of every row: known from the stage, or computed now."""
        scores = np.zeros(len(rows))
        is_known = np.isin(rows, found[0])
        order = np.argsort(found[0])
        scores[is_known] = found[1][order[np.searchsorted(found[0], rows[is_known], sorter=order)]]
        scores[~is_known] = self._lexical.scores(query.text, rows[~is_known])
        return scores

    def _fuse(
        self, rows: Rows, dense: Scores | None, lexical: Scores | None, dense_rows: Rows, lexical_rows: Rows
    ) -> tuple[Scores, Scores]:
        """The scores that rank, and those that the prior is made of."""
        fusion = self._plan.fusion
        if lexical is None:
            assert dense is not None
            return dense, dense
        if dense is None:  # In the fusion's units, where the temperature has its meaning.
            return lexical, fusion.lexical_weight * lexical
        if fusion.method is FusionMethod.RRF:
            return reciprocal_rank(_ranks(rows, dense_rows), _ranks(rows, lexical_rows), fusion), dense
        fused = linear(dense, lexical, fusion)
        return fused, fused

    def _fetch(self, ranked: Sequence[_Ranked], existing: Rows, vectors: Vectors) -> tuple[tuple[Hit, ...], ...]:
        passages = self._reader.passages(np.unique(np.concatenate([one.rows for one in ranked])))

        def hit(one: _Ranked, i: int) -> Hit:
            row = int(one.rows[i])
            return Hit(
                passages[row],
                float(one.scores[i]),
                None if one.dense is None else float(one.dense[i]),
                None if one.lexical is None else float(one.lexical[i]),
                float(one.log_prior[i]),
                vectors[np.searchsorted(existing, row)] if self._plan.with_vectors else None,
            )

        return tuple(tuple(hit(one, i) for i in range(len(one.rows))) for one in ranked)


def _present(rows: Rows) -> Rows:
    return rows[rows >= 0]


def _ranks(rows: Rows, stage: Rows) -> Scores:
    """1-based rank of each row in a stage's list; infinity where it is not in it."""
    ranks = np.full(len(rows), np.inf)
    for rank, row in enumerate(stage.tolist(), start=1):
        position = np.searchsorted(rows, row)
        if position < len(rows) and rows[position] == row:
            ranks[position] = rank
    return ranks
