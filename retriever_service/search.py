"""One search over one consistent state: candidates of both stages, exact scores, fusion, passages. Synchronous."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from retriever_service.candidates import Candidates, LexicalStage
from retriever_service.collection import LexicalScoring, Passage, Rows, Scores, Vectors
from retriever_service.dense_index import VectorSearch, positions_of
from retriever_service.diversity import by_marginal_relevance, content_key
from retriever_service.filters import Condition
from retriever_service.fusion import Fusion, FusionMethod, best, linear, log_prior, reciprocal_rank
from retriever_service.lexical_index import LexicalIndex
from retriever_service.store import Reader
from retriever_service.tf_idf import TfIdf
from retriever_service.vectors import SentenceVectors, with_best_sentences


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
        lexical_scoring: What the lexical score is.
        has_sentences: Whether passages have vectors of their sentences, whose best then counts.
        relevance: Of maximal marginal relevance; None ranks by score alone.
        num_neighbors: Passages before and after each hit that it carries.
        num_reread: Hits that a reranker reads again; None is no reranking. It is then the reranker's score that
            `min_score` and `relevance` go by, and the prior is made of.
        rerank_temperature: tau of that prior.
    """

    top_k: int
    num_candidates: int
    fusion: Fusion
    temperature: float
    min_score: float = -np.inf
    condition: Condition | None = None
    with_vectors: bool = False
    lexical_scoring: LexicalScoring = LexicalScoring.BM25
    has_sentences: bool = False
    relevance: float | None = None
    num_neighbors: int = 0
    num_reread: int | None = None
    rerank_temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage as one query found it. A stage that the mode leaves out has no score."""

    passage: Passage
    score: float
    dense_score: float | None
    lexical_score: float | None
    log_prior: float
    vector: Vectors | None = None
    rerank_score: float | None = None
    neighbors: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of each query, best first, and how long the stages took in seconds."""

    hits: tuple[tuple[Hit, ...], ...]
    search_seconds: float
    fetch_seconds: float
    rerank_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A query's candidates, best first, with their scores; `prior` are those that the prior is made of."""

    rows: Rows
    scores: Scores
    prior: Scores
    dense: Scores | None
    lexical: Scores | None

    def at(self, positions: Sequence[int]) -> _Ranked:
        """Some of them, in this order."""
        chosen = np.array(positions, np.int64)
        dense, lexical = (None if one is None else one[chosen] for one in (self.dense, self.lexical))
        return replace(
            self,
            rows=self.rows[chosen],
            scores=self.scores[chosen],
            prior=self.prior[chosen],
            dense=dense,
            lexical=lexical,
        )


class Search:
    """Searches one state of a collection for one request, or for several of one plan."""

    def __init__(self, reader: Reader, dense: VectorSearch, lexical: LexicalIndex, plan: Plan) -> None:
        """Prepares a search.

        Args:
            reader: The consistent state that decides what exists and what matches the filter. The indexes may be
                ahead of it or behind it.
            dense: The dense index.
            lexical: The lexical index.
            plan: How to search.
        """
        self._reader, self._plan = reader, plan
        self._lexical: LexicalStage = lexical
        if plan.lexical_scoring is LexicalScoring.TF_IDF:
            self._lexical = TfIdf(lexical, reader.texts)
        self._candidates = Candidates(reader, dense, self._lexical, count=plan.num_candidates, condition=plan.condition)
        self._passages: dict[int, Passage] = {}
        self._sentences: SentenceVectors | None = None

    def run(self, queries: Sequence[SearchQuery]) -> Found:
        """Finds the passages for each query."""
        started = time.monotonic()
        nothing = np.empty(0, np.int64), np.empty(0)
        dense = self._candidates.dense([query.vector for query in queries])
        lexical = [nothing if query.mode is Mode.DENSE else self._candidates.lexical(query.text) for query in queries]
        rows, vectors = self._existing(dense + [rows for rows, _ in lexical])
        if self._plan.has_sentences and len(rows):
            self._sentences = self._reader.sentences(rows, vectors.shape[1])
        ranked = []
        for i, query in enumerate(queries):
            own, own_vectors = rows, vectors
            if len(queries) > 1:
                there = positions_of(rows, np.unique(np.concatenate((dense[i], lexical[i][0]))))
                own, own_vectors = rows[there], vectors[there]
            ranked.append(self._rank(query, dense[i], lexical[i], own, own_vectors))
        searched = time.monotonic()
        chosen = self._choose(ranked, rows, vectors)
        hits = tuple(self._hits(one, rows, vectors) for one in chosen)
        if self._plan.num_neighbors:
            hits = self._with_neighbors(hits)
        return Found(hits, searched - started, time.monotonic() - searched)

    def _existing(self, candidates: Sequence[Rows]) -> tuple[Rows, Vectors]:
        """Ascending rows (N,) of all candidates that exist and match in this state, and their vectors (N, D)."""
        rows = np.unique(np.concatenate(candidates))
        if self._plan.condition is not None:
            rows = self._reader.keep_matching(rows, self._plan.condition)
        return self._reader.vectors(rows)

    def _rank(
        self, query: SearchQuery, dense: Rows, lexical: tuple[Rows, Scores], rows: Rows, vectors: Vectors
    ) -> _Ranked:
        """The query's candidates (N,), ascending with their vectors (N, D), by what the stages found."""
        dense_scores = lexical_scores = None
        if query.vector is not None:  # Exact: from the stored float32 vectors, summed in float64.
            dense_scores = vectors.astype(np.float64) @ query.vector.astype(np.float64) if len(rows) else np.empty(0)
            if self._sentences is not None:
                dense_scores = with_best_sentences(dense_scores, rows, self._sentences, query.vector)
                ordered = rows[best(dense_scores, rows, len(rows))]
                dense = ordered[np.isin(ordered, dense)]
        if query.mode is not Mode.DENSE:
            lexical_scores = self._lexical_scores(query, rows, lexical)
        scores, prior = self._fuse(rows, dense_scores, lexical_scores, dense, lexical[0])
        order = best(scores, rows, len(rows))
        return _Ranked(rows, scores, prior, dense_scores, lexical_scores).at(
            order[scores[order] >= self._plan.min_score].tolist()
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

    def _choose(self, ranked: Sequence[_Ranked], existing: Rows, vectors: Vectors) -> list[_Ranked]:
        """The first `top_k` of each query in the order asked for; of equal content the first alone."""
        orders = [iter(self._order(one, existing, vectors)) for one in ranked]
        chosen: list[list[int]] = [[] for _ in ranked]
        seen: list[set[tuple[str, str]]] = [set() for _ in ranked]
        pending: Iterable[int] = range(len(ranked))
        while pending:
            taken = {i: list(islice(orders[i], self._plan.top_k - len(chosen[i]))) for i in pending}
            self._read([int(ranked[i].rows[position]) for i, positions in taken.items() for position in positions])
            for i, positions in taken.items():
                for position in positions:
                    key = content_key(self._passages[int(ranked[i].rows[position])])
                    if key not in seen[i]:
                        chosen[i].append(position)
                        seen[i].add(key)
            pending = [i for i, positions in taken.items() if positions and len(chosen[i]) < self._plan.top_k]
        return [one.at(positions) for one, positions in zip(ranked, chosen, strict=True)]

    def _order(self, one: _Ranked, existing: Rows, vectors: Vectors) -> Iterable[int]:
        if self._plan.relevance is None:
            return range(len(one.rows))
        return by_marginal_relevance(one.scores, vectors[np.searchsorted(existing, one.rows)], self._plan.relevance)

    def _read(self, rows: Iterable[int]) -> None:
        missing = set(rows) - self._passages.keys()
        if missing:
            self._passages.update(self._reader.passages(np.array(sorted(missing), np.int64)))

    def _hits(self, one: _Ranked, existing: Rows, vectors: Vectors) -> tuple[Hit, ...]:
        log_priors = log_prior(one.prior, self._plan.temperature)
        return tuple(
            Hit(
                self._passages[row],
                float(one.scores[i]),
                None if one.dense is None else float(one.dense[i]),
                None if one.lexical is None else float(one.lexical[i]),
                float(log_priors[i]),
                vectors[np.searchsorted(existing, row)] if self._plan.with_vectors else None,
            )
            for i, row in enumerate(one.rows.tolist())
        )

    def _with_neighbors(self, hits: tuple[tuple[Hit, ...], ...]) -> tuple[tuple[Hit, ...], ...]:
        """The hits with the passages beside them, those that match the filter."""
        passages = {hit.passage.id: hit.passage for of_query in hits for hit in of_query}
        beside = {id_: self._reader.rows_beside(passage, self._plan.num_neighbors) for id_, passage in passages.items()}
        rows = np.unique(np.array([row for found in beside.values() for row in found], np.int64))
        if self._plan.condition is not None:
            rows = self._reader.keep_matching(rows, self._plan.condition)
        allowed = set(rows.tolist())
        self._read(allowed)

        def neighbors(hit: Hit) -> tuple[Passage, ...]:
            return tuple(self._passages[row] for row in beside[hit.passage.id] if row in allowed)

        return tuple(tuple(replace(hit, neighbors=neighbors(hit)) for hit in of_query) for of_query in hits)


def _ranks(rows: Rows, stage: Rows) -> Scores:
    """1-based rank of each row in a stage's list; infinity where it is not in it."""
    ranks = np.full(len(rows), np.inf)
    for rank, row in enumerate(stage.tolist(), start=1):
        position = np.searchsorted(rows, row)
        if position < len(rows) and rows[position] == row:
            ranks[position] = rank
    return ranks
