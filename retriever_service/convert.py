"""Between the wire and the domain: queries, options, filters, passages, vectors. Errors use the wire's names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from retriever_service.collection import DEFAULT_COLLECTION, MetadataValue, Passage, Source, Span, Vectors
from retriever_service.diversity import DEFAULT_RELEVANCE
from retriever_service.filters import AllOf, AnyOf, Equals, Filter, In, Not, Range
from retriever_service.fusion import FusionChange, FusionMethod
from retriever_service.limits import LIMITS, check_count
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Hit, Mode
from retriever_service.upserting import UpsertItem, UpsertMessage
from serving.errors import InvalidRequest, RagError, Unimplemented

K = TypeVar("K")
V = TypeVar("V")

_BYTES_PER_ELEMENT = {
    common.DATA_TYPE_UNSPECIFIED: 4,
    common.DATA_TYPE_FLOAT32: 4,
    common.DATA_TYPE_FLOAT16: 2,
    common.DATA_TYPE_BFLOAT16: 2,
}
_MODES = {
    common.RETRIEVAL_MODE_UNSPECIFIED: None,
    common.RETRIEVAL_MODE_DENSE: Mode.DENSE,
    common.RETRIEVAL_MODE_LEXICAL: Mode.LEXICAL,
    common.RETRIEVAL_MODE_HYBRID: Mode.HYBRID,
}
_FUSION_METHODS = {
    common.FUSION_METHOD_UNSPECIFIED: None,
    common.FUSION_METHOD_LINEAR: FusionMethod.LINEAR,
    common.FUSION_METHOD_RRF: FusionMethod.RRF,
}
_IS_RERANKED = {common.Rerank.METHOD_UNSPECIFIED: False, common.Rerank.METHOD_CROSS_ENCODER: True}
_BY_THE_GENERATOR = (common.Rerank.METHOD_QUESTION_LIKELIHOOD, common.Rerank.METHOD_ANSWERABILITY)
_BOUNDS = ("greater_than", "greater_or_equal", "less_than", "less_or_equal")


def vector_from(message: common.Vector, field: str) -> Vectors:
    """A vector (D,) float32.

    Raises:
        InvalidRequest: When its bytes do not fit its type and dimension.
    """
    size = choice(_BYTES_PER_ELEMENT, message.dtype, f"{field}.dtype")
    if message.dim == 0 or len(message.data) != size * message.dim:
        raise InvalidRequest(
            f"{field} has {len(message.data)} bytes of data; dim {message.dim} of {size}-byte numbers "
            f"are {size * message.dim}",
            field=field,
            reason="WRONG_DIMENSION",
        )
    if message.dtype == common.DATA_TYPE_FLOAT16:
        return np.frombuffer(message.data, "<f2").astype(np.float32)
    if message.dtype == common.DATA_TYPE_BFLOAT16:
        return (np.frombuffer(message.data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(message.data, "<f4").astype(np.float32)


def vector_to(vector: Vectors, dtype: common.DataType = common.DATA_TYPE_FLOAT32) -> common.Vector:
    """A vector (D,) on the wire; bfloat16 is rounded to nearest, ties to even."""
    choice(_BYTES_PER_ELEMENT, dtype, "dtype")
    if dtype == common.DATA_TYPE_FLOAT16:
        data = vector.astype("<f2").tobytes()
    elif dtype == common.DATA_TYPE_BFLOAT16:
        bits = np.ascontiguousarray(vector, np.float32).view(np.uint32)
        data = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    else:
        dtype, data = common.DATA_TYPE_FLOAT32, vector.astype("<f4").tobytes()
    return common.Vector(data=data, dtype=dtype, dim=len(vector))


def query_from(message: wire.Query) -> QueryInput:
    """A query; one whose vector cannot be read carries the error, so that it fails by itself."""
    try:
        vector = vector_from(message.vector, "query.vector") if message.HasField("vector") else None
    except RagError as error:
        return QueryInput(message.text, error=error)
    return QueryInput(message.text, vector)


def options_from(message: common.RetrievalOptions) -> RetrievalOptions:
    """Retrieval options.

    Raises:
        Unimplemented: When they ask for what the gateway alone can do.
        InvalidRequest: When an enum or the filter cannot be read.
    """
    if message.rerank.method in _BY_THE_GENERATOR:
        method = common.Rerank.Method.Name(message.rerank.method).removeprefix("METHOD_")
        raise Unimplemented(f"rerank by {method} needs the generator: ask the gateway")
    if message.rerank.HasField("answerability_weight"):
        raise InvalidRequest(
            "options.rerank.answerability_weight is for ANSWERABILITY alone",
            field="options.rerank.answerability_weight",
        )
    is_reranked = choice(_IS_RERANKED, message.rerank.method, "options.rerank.method")
    relevance = message.diversity.relevance if message.diversity.HasField("relevance") else DEFAULT_RELEVANCE
    return RetrievalOptions(
        collection=message.collection or DEFAULT_COLLECTION,
        mode=choice(_MODES, message.mode, "options.mode"),
        top_k=message.top_k if message.HasField("top_k") else None,
        filter=filter_from(message.filter) if message.HasField("filter") else None,
        fusion=fusion_from(message.fusion),
        temperature=message.temperature if message.HasField("temperature") else None,
        min_sequence=message.min_sequence,
        index_generation=message.index_generation,
        num_candidates=message.num_candidates,
        min_score=message.min_score if message.HasField("min_score") else None,
        include_vectors=message.include_vectors,
        num_neighbors=message.num_neighbors,
        num_reread=message.rerank.num_candidates if is_reranked else None,
        relevance=relevance if message.HasField("diversity") else None,
    )


def fusion_from(message: common.Fusion) -> FusionChange:
    """The parts of a fusion that are set."""

    def given(name: str) -> float | None:
        return getattr(message, name) if message.HasField(name) else None

    return FusionChange(
        choice(_FUSION_METHODS, message.method, "fusion.method"),
        given("dense_weight"),
        given("lexical_weight"),
        given("rrf_k"),
    )


def filter_from(message: common.Filter, depth: int = 1) -> Filter:
    """A filter; what it names is checked against the collection later."""
    if depth > LIMITS.max_filter_depth:
        raise InvalidRequest(f"filter is nested deeper than {LIMITS.max_filter_depth}", field="filter")
    match message.WhichOneof("condition"):
        case "equals":
            return Equals(message.equals.field, value_from(message.equals.value, "filter.equals.value"))
        case "in":
            among = getattr(message, "in")
            return In(among.field, tuple(value_from(value, "filter.in.values") for value in among.values))
        case "range":
            bounds = message.range
            given = [name for name in _BOUNDS if bounds.HasField(name)]
            return Range(
                bounds.field, tuple((name, value_from(getattr(bounds, name), f"filter.range.{name}")) for name in given)
            )
        case "all_of":
            return AllOf(tuple(filter_from(one, depth + 1) for one in message.all_of.filters))
        case "any_of":
            return AnyOf(tuple(filter_from(one, depth + 1) for one in message.any_of.filters))
        case "not":
            return Not(filter_from(getattr(message, "not"), depth + 1))
    raise InvalidRequest("filter has no condition", field="filter", reason="INVALID_FILTER")


def value_from(message: common.Value, field: str) -> MetadataValue:
    """A metadata value."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest(f"{field} has no value", field=field)
    if kind == "string_list":
        return tuple(message.string_list.values)
    value: MetadataValue = getattr(message, kind)
    return value


def value_to(value: MetadataValue) -> common.Value:
    """A metadata value on the wire."""
    match value:
        case bool():
            return common.Value(bool_value=value)
        case str():
            return common.Value(string_value=value)
        case int():
            return common.Value(int_value=value)
        case float():
            return common.Value(double_value=value)
    return common.Value(string_list=common.StringList(values=value))


def passage_to(passage: Passage) -> common.Passage:
    """A passage on the wire."""
    span = passage.span
    return common.Passage(
        id=passage.id,
        title=passage.title,
        text=passage.text,
        source=passage.source,
        span=None
        if span is None
        else common.TextSpan(start_char=span.start_char, end_char=span.end_char, page=span.page),
        metadata={name: value_to(value) for name, value in passage.metadata.items()},
        content_digest=passage.content_digest,
        sequence=passage.sequence,
    )


def upsert_from(message: wire.UpsertRequest) -> UpsertMessage:
    """One message of an upsert stream; passages that cannot be read carry their error."""
    sources = [Source(source.name, source.digest) for source in message.sources]
    items = [_item_from(item) for item in message.passages]
    return UpsertMessage(message.collection, items, sources, message.replace_sources)


def hit_to(hit: Hit, rank: int) -> common.RetrievedPassage:
    """A found passage on the wire."""
    return common.RetrievedPassage(
        passage=passage_to(hit.passage),
        rank=rank,
        score=hit.score,
        dense_score=hit.dense_score,
        lexical_score=hit.lexical_score,
        rerank_score=hit.rerank_score,
        log_prior=hit.log_prior,
        neighbors=map(passage_to, hit.neighbors),
        vector=None if hit.vector is None else vector_to(hit.vector),
    )


def source_to(source: Source) -> wire.Source:
    """A source on the wire."""
    updated_at = timestamp_to(source.updated_at) if source.updated_at else None
    return wire.Source(name=source.name, digest=source.digest, num_passages=source.num_passages, updated_at=updated_at)


def timestamp_to(seconds: float) -> Timestamp:
    """A moment, from Unix time in seconds."""
    moment = Timestamp()
    moment.FromNanoseconds(int(seconds * 1e9))
    return moment


def page_size_from(size: int) -> int:
    """A page size; 100 for 0."""
    return check_count(size or 100, LIMITS.max_page_size, "page_size", minimum=1)


def page_token_from(token: str) -> str:
    """The key after which a page starts."""
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise InvalidRequest("page_token is none of this server's", field="page_token") from error


def page_token_to(after: str) -> str:
    """The token of the page after this key; empty on the last page."""
    return base64.urlsafe_b64encode(after.encode()).decode()


def choice(choices: Mapping[K, V], value: K, field: str) -> V:
    """The domain's word for an enum value.

    Raises:
        InvalidRequest: When the value is unknown.
    """
    if value not in choices:
        raise InvalidRequest(f"{field} has the unknown value {value}", field=field)
    return choices[value]


def _item_from(message: wire.PassageUpsert) -> UpsertItem:
    given = message.passage
    span = Span(given.span.start_char, given.span.end_char, given.span.page) if given.HasField("span") else None
    bare = Passage(given.id, given.title, given.text, given.source, span)
    try:
        metadata = {name: value_from(value, f"passage.metadata[{name}]") for name, value in given.metadata.items()}
        vector = vector_from(message.vector, "vector") if message.HasField("vector") else None
    except RagError as error:
        return UpsertItem(bare, error=error)
    return UpsertItem(Passage(given.id, given.title, given.text, given.source, span, metadata), vector)
