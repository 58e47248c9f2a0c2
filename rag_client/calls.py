"""Every call of the client as data: which RPC, which message, how the reply is read.

The synchronous and the asynchronous client both run these; neither knows a wire message.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from protos.rag.v1 import gateway_pb2, retriever_pb2
from rag_client import collection_convert, convert, wire, wire_answers
from rag_client.answer_types import Answer, Event
from rag_client.collection_types import (
    Collection,
    CollectionSettings,
    DeleteResult,
    Embeddings,
    GatewayInfo,
    Source,
    UpsertResult,
)
from rag_client.enums import Rating, TextRole
from rag_client.errors import InvalidRequest
from rag_client.filters import Filter
from rag_client.types import EmbeddedPassage, Fusion, Passage, Query, Retrieval

Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One call: `request` is a message, or an iterable of messages for a client-streaming RPC."""

    service: Literal["gateway", "retriever"]
    rpc: str
    request: Any
    read: Callable[[Any], Result]


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a listing; `next_page_token` is empty on the last."""

    items: tuple[Item, ...]
    next_page_token: str


def answer(question: str, options: Mapping[str, Any]) -> Call[Answer]:
    """Answer a question."""
    request = wire.message(gateway_pb2.AnswerRequest, wire_answers.answer_fields(question, options))
    return Call("gateway", "Answer", request, convert.answer)


def stream_answer(question: str, options: Mapping[str, Any]) -> Call[Event | None]:
    """Answer a question as a stream of events."""
    request = wire.message(gateway_pb2.StreamAnswerRequest, wire_answers.answer_fields(question, options))
    return Call("gateway", "StreamAnswer", request, convert.event)


def compare(question: str, index_generations: Sequence[int], options: Mapping[str, Any]) -> Call[list[Answer]]:
    """Ask several index generations the same question."""
    fields = {**wire_answers.compare_fields(question, options), "index_generations": index_generations}
    request = wire.message(gateway_pb2.CompareAnswersRequest, fields)
    return Call("gateway", "CompareAnswers", request, lambda reply: list(map(convert.answer, reply.answers)))


def retrieve(queries: Sequence[str | Query], options: Mapping[str, Any]) -> Call[list[Retrieval]]:
    """Find passages for a batch of queries."""
    fields = {"queries": list(map(wire.query, queries)), "options": wire.only_retrieval_options(options)}
    return Call("retriever", "Retrieve", wire.message(retriever_pb2.RetrieveRequest, fields), convert.retrievals)


def embed(texts: Sequence[str], role: TextRole | str, collection: str) -> Call[Embeddings]:
    """Embed texts."""
    number = wire.number(retriever_pb2.TextRole, "TEXT_ROLE_", role, field="role")
    fields = {"texts": texts, "role": number, "collection": collection}
    return Call("retriever", "Embed", wire.message(retriever_pb2.EmbedRequest, fields), collection_convert.embeddings)


def upsert(
    passages: Iterable[Passage | EmbeddedPassage], *, collection: str, sources: Iterable[Source], replace_sources: bool
) -> Call[UpsertResult]:
    """Write passages."""
    messages = wire.upsert_messages(passages, collection=collection, sources=sources, replace_sources=replace_sources)
    return Call("retriever", "Upsert", messages, collection_convert.upsert_result)


def delete(
    collection: str, ids: Sequence[str] | None, sources: Sequence[str] | None, condition: Filter | None
) -> Call[DeleteResult]:
    """Delete by exactly one of ids, sources and filter."""
    request = wire.message(retriever_pb2.DeleteRequest, {"collection": collection})
    select(request, ids, sources, condition)
    return Call("retriever", "Delete", request, lambda reply: DeleteResult(reply.num_deleted, reply.sequence))


def select(request: Any, ids: Sequence[str] | None, sources: Sequence[str] | None, condition: Filter | None) -> None:
    """Sets the request's selector; exactly one must be given."""
    if sum(each is not None for each in (ids, sources, condition)) != 1:
        raise InvalidRequest("exactly one of ids, sources and filter selects passages", field="selector")
    if ids is not None:
        request.ids.CopyFrom(wire.message(retriever_pb2.IdList, {"ids": ids}))
    elif sources is not None:
        request.sources.CopyFrom(wire.message(retriever_pb2.SourceList, {"names": sources}))
    elif condition is not None:
        request.filter.CopyFrom(wire.filter_message(condition))


def get_passages(ids: Sequence[str], collection: str) -> Call[list[Passage]]:
    """Read passages by id."""
    request = wire.message(retriever_pb2.GetPassagesRequest, {"ids": ids, "collection": collection})
    return Call("retriever", "GetPassages", request, lambda reply: list(map(convert.passage, reply.passages)))


def list_passages(collection: str, condition: Filter | None, page_size: int, page_token: str) -> Call[Page[Passage]]:
    """One page of passages."""
    fields = {"collection": collection, "page_size": page_size, "page_token": page_token}
    request = wire.message(retriever_pb2.ListPassagesRequest, fields)
    if condition is not None:
        request.filter.CopyFrom(wire.filter_message(condition))

    def read(reply: retriever_pb2.ListPassagesResponse) -> Page[Passage]:
        return Page(tuple(map(convert.passage, reply.passages)), reply.next_page_token)

    return Call("retriever", "ListPassages", request, read)


def list_sources(collection: str, prefix: str, page_size: int, page_token: str) -> Call[Page[Source]]:
    """One page of sources."""
    fields = {"collection": collection, "prefix": prefix, "page_size": page_size, "page_token": page_token}

    def read(reply: retriever_pb2.ListSourcesResponse) -> Page[Source]:
        return Page(tuple(map(collection_convert.source, reply.sources)), reply.next_page_token)

    return Call("retriever", "ListSources", wire.message(retriever_pb2.ListSourcesRequest, fields), read)


def create_collection(settings: CollectionSettings) -> Call[Collection]:
    """Create a collection."""
    request = retriever_pb2.CreateCollectionRequest(settings=wire.settings(settings))
    return Call("retriever", "CreateCollection", request, _read_collection)


def configure_collection(name: str, temperature: float | None, fusion: Fusion | None) -> Call[Collection]:
    """Change a collection's scoring."""
    fields = {"collection": name, "temperature": temperature, "fusion": wire.fusion(fusion)}
    request = wire.message(retriever_pb2.ConfigureCollectionRequest, fields)
    return Call("retriever", "ConfigureCollection", request, _read_collection)


def describe_collection(name: str) -> Call[Collection]:
    """Describe a collection."""
    request = wire.message(retriever_pb2.DescribeCollectionRequest, {"collection": name})
    return Call("retriever", "DescribeCollection", request, _read_collection)


def list_collections() -> Call[list[Collection]]:
    """All collections."""

    def read(reply: retriever_pb2.ListCollectionsResponse) -> list[Collection]:
        return list(map(collection_convert.collection, reply.collections))

    return Call("retriever", "ListCollections", retriever_pb2.ListCollectionsRequest(), read)


def drop_collection(name: str) -> Call[int]:
    """Drop a collection."""
    request = wire.message(retriever_pb2.DropCollectionRequest, {"collection": name})
    return Call("retriever", "DropCollection", request, lambda reply: int(reply.num_dropped))


def send_feedback(
    answer_id: str, rating: Rating | str | None, expected_answer: str, comment: str, helpful_ids: Sequence[str]
) -> Call[str]:
    """Record feedback."""
    fields = {
        "answer_id": answer_id,
        "rating": wire.number(gateway_pb2.Feedback.Rating, "RATING_", rating, field="rating"),
        "expected_answer": expected_answer,
        "comment": comment,
        "helpful_passage_ids": helpful_ids,
    }
    request = gateway_pb2.SendFeedbackRequest(feedback=wire.message(gateway_pb2.Feedback, fields))
    return Call("gateway", "SendFeedback", request, lambda reply: str(reply.feedback_id))


def info() -> Call[GatewayInfo]:
    """What the gateway is."""
    return Call("gateway", "GetInfo", gateway_pb2.GatewayServiceGetInfoRequest(), collection_convert.gateway_info)


def _read_collection(reply: Any) -> Collection:
    return collection_convert.collection(reply.collection)
