"""Search bodies, and what their scores mean. Pure.

Source: Elastic's reference for the search API (knn, rescore_vector), Query DSL and the dense_vector field type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retriever_service.backends.operands import BUILT_IN, operand
from retriever_service.backends.remote import StageQuery
from retriever_service.collection import FieldType, Metric
from retriever_service.filters import AllOf, AnyOf, Equals, Filter, In, Not, Range

Body = dict[str, Any]

OVERSAMPLE = 3.0
_BOUNDS = {"greater_than": "gt", "greater_or_equal": "gte", "less_than": "lt", "less_or_equal": "lte"}
_MAX_CANDIDATES = 10_000  # The server's limit for num_candidates.
_CANDIDATES_PER_HIT, _MIN_CANDIDATES = 4, 200
# Lucene's BM25 leaves out the factor k1 + 1 that tantivy's has; fusion weights are meant for scores with it.
BM25_SCALE = 2.2


def compile_filter(given: Filter, declared: Mapping[str, FieldType]) -> Body:
    """A checked filter as a query."""
    match given:
        case AllOf(filters):
            return {"bool": {"filter": [compile_filter(one, declared) for one in filters]}}
        case AnyOf(filters):
            return {"bool": {"should": [compile_filter(one, declared) for one in filters], "minimum_should_match": 1}}
        case Not(inner):
            return {"bool": {"must_not": [compile_filter(inner, declared)]}}
        case Equals(field, value):
            return {"term": {_path(field): {"value": operand(field, value, declared)}}}
        case In(field, values):
            return {"terms": {_path(field): [operand(field, value, declared) for value in values]}}
        case Range(field, bounds):
            return {"range": {_path(field): {_BOUNDS[name]: operand(field, value, declared) for name, value in bounds}}}


def stage_body(query: StageQuery, matching: Body | None, *, is_quantised: bool) -> Body:
    """One search of a `_msearch`: the best hits of one stage, with documents and their exact vectors.

    Args:
        query: What to look for.
        matching: The filter.
        is_quantised: Whether the index keeps less than float32, so that its candidates are scored again.
    """
    filters = [] if matching is None else [matching]
    if query.among is not None:
        filters.append({"terms": {"row": list(query.among)}})
    body: Body = {"size": query.count, "track_total_hits": False}
    if query.vector is None:
        return body | {"query": {"bool": {"must": [{"match": {"words": {"query": query.text}}}], "filter": filters}}}
    num_candidates = max(_MIN_CANDIDATES, _CANDIDATES_PER_HIT * query.count)
    knn: Body = {
        "field": "vector",
        "query_vector": query.vector.tolist(),
        "k": query.count,
        "num_candidates": min(_MAX_CANDIDATES, num_candidates),
    }
    if filters:
        knn["filter"] = filters
    if is_quantised:
        knn["rescore_vector"] = {"oversample": OVERSAMPLE}
    return body | {"knn": knn}


def inner_product(score: float, metric: Metric) -> float:
    """What a `_score` of a kNN search stands for: itself it is never negative."""
    if metric is Metric.COSINE:
        return 2.0 * score - 1.0
    return score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score


def _path(field: str) -> str:
    return field if field in BUILT_IN else f"fields.{field}"
