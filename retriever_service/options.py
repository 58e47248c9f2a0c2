"""What a caller may say about a retrieval, and what follows from it for a collection. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from retriever_service.collection import DEFAULT_COLLECTION, CollectionSettings, Vectors, check_temperature
from retriever_service.filters import Filter, compile_filter
from retriever_service.fusion import FusionChange
from retriever_service.limits import LIMITS, check_count, check_text
from retriever_service.search import Mode, Plan
from serving.errors import InvalidRequest, RagError

DEFAULT_TOP_K = 5
# Recall@1/5/10/20 on 5,203 SQuAD passages does not change from 50 candidates on.
_MIN_CANDIDATES = 50
_NUM_RERANKED = 20


@dataclass(frozen=True, slots=True)
class QueryInput:
    """One query as sent: text, a ready vector (D,), or both; `error` where it cannot be taken as sent."""

    text: str = ""
    vector: Vectors | None = None
    error: RagError | None = None


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """How passages are found and weighed; None takes the collection's or the server's default.

    `num_reread` asks for a reranker, with 0 for the server's choice; `relevance` asks for diversity.
    """

    collection: str = DEFAULT_COLLECTION
    mode: Mode | None = None
    top_k: int | None = None
    filter: Filter | None = None
    fusion: FusionChange = field(default_factory=FusionChange)
    temperature: float | None = None
    min_sequence: int = 0
    index_generation: int = 0
    num_candidates: int = 0
    min_score: float | None = None
    include_vectors: bool = False
    num_neighbors: int = 0
    num_reread: int | None = None
    relevance: float | None = None

    def plan(self, settings: CollectionSettings, *, default_top_k: int | None = None) -> Plan:
        """What is done for a collection, every default filled in.

        Args:
            settings: The collection's.
            default_top_k: What the encoder's checkpoint was trained with; None where it does not say.

        Raises:
            InvalidRequest: When an option is out of its range or the filter is not valid for the collection.
        """
        top_k = (default_top_k or DEFAULT_TOP_K) if self.top_k is None else self.top_k
        check_count(top_k, LIMITS.max_top_k, "options.top_k", minimum=1)
        check_count(self.num_candidates, LIMITS.max_num_candidates, "options.num_candidates")
        if self.temperature is not None:
            check_temperature(self.temperature, "options.temperature")
        check_count(self.num_neighbors, LIMITS.max_neighbors, "options.num_neighbors")
        check_count(self.num_reread or 0, LIMITS.max_reranked, "options.rerank.num_candidates")
        if self.relevance is not None and not 0 <= self.relevance <= 1:
            raise InvalidRequest(
                f"options.diversity.relevance must be in [0, 1], not {self.relevance}",
                field="options.diversity.relevance",
            )
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise InvalidRequest("options.min_score must be finite", field="options.min_score")
        return Plan(
            top_k=top_k,
            num_candidates=max(top_k, self.num_candidates or max(_MIN_CANDIDATES, 2 * top_k)),
            fusion=self.fusion.apply(settings.fusion),
            temperature=self.temperature or settings.temperature,
            min_score=-math.inf if self.min_score is None else self.min_score,
            condition=None if self.filter is None else compile_filter(self.filter, settings.filterable_fields),
            with_vectors=self.include_vectors,
            lexical_scoring=settings.lexical_scoring,
            has_sentences=settings.sentence_vectors,
            relevance=self.relevance,
            num_neighbors=self.num_neighbors,
            num_reread=None if self.num_reread is None else max(top_k, self.num_reread or _NUM_RERANKED),
            rerank_temperature=self.temperature or 1.0,
        )


def mode_of(query: QueryInput, options: RetrievalOptions, *, has_lexical: bool = True) -> Mode:
    """The stages that look for this query's passages: where nobody says it, all there are.

    Raises:
        InvalidRequest: When the query is blank or over its limit, or what is asked for needs text and there is none.
    """
    if query.error is not None:
        raise query.error
    check_text(query.text, LIMITS.max_query_bytes, "query.text")
    has_text = bool(query.text.strip())
    if not has_text and query.vector is None:
        raise InvalidRequest("query.text is empty: ask something, or give a vector", field="query.text", reason="EMPTY")
    if options.num_reread is not None and not has_text:
        raise InvalidRequest("query.text is empty: reranking needs it", field="query.text", reason="EMPTY")
    mode = options.mode or (Mode.HYBRID if has_text and has_lexical else Mode.DENSE)
    if mode is not Mode.DENSE and not has_text:
        raise InvalidRequest(f"query.text is empty: {mode} retrieval needs it", field="query.text", reason="EMPTY")
    return mode
