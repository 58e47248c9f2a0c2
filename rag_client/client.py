"""The synchronous client."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.rag.v1 import gateway_pb2_grpc, retriever_pb2_grpc
from rag_client import calls
from rag_client.answer_types import Answer, Event
from rag_client.calls import Call, Page
from rag_client.channel import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT_SECONDS,
    READINESS,
    UPSERT_TIMEOUT_SECONDS,
    channel_options,
    request_metadata,
)
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
from rag_client.errors import error_from_call
from rag_client.filters import Filter
from rag_client.maintenance import Maintenance
from rag_client.options import AnswerOptions, CollectionOptions, CompareOptions, RetrievalOptions
from rag_client.sending import Sending
from rag_client.types import EmbeddedPassage, Fusion, Passage, Query, Retrieval

Result = TypeVar("Result")
Item = TypeVar("Item")


class RagClient(Maintenance):
    """Talks to a gateway. Thread-safe; close it, or use it in a `with` statement.

    Every method raises a `rag_client.errors.RagError`. `timeout` is in seconds and covers the whole call.
    """

    def __init__(self, target: str = DEFAULT_TARGET, *, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        """Prepares the channel; it connects with the first call.

        Args:
            target: The gateway's address, e.g. "localhost:50050" or "dns:///gateway:50050".
            timeout: Default timeout of a call, in seconds.
        """
        self.target = target
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target, options=channel_options())
        self._stubs: dict[str, Any] = {
            "gateway": gateway_pb2_grpc.GatewayServiceStub(self._channel),
            "retriever": retriever_pb2_grpc.RetrieverServiceStub(self._channel),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; calls under way are cancelled."""
        self._channel.close()

    def answer(self, question: str, *, timeout: float | None = None, **options: Unpack[AnswerOptions]) -> Answer:
        """Answers a question from the passages of a collection, or does another `task` with it."""
        return self._run(calls.answer(question, options), timeout)

    def stream(
        self, question: str, *, timeout: float | None = None, **options: Unpack[AnswerOptions]
    ) -> Iterator[Event]:
        """Answers as a stream of events; the last is `FinalAnswer`. Closing the iterator cancels the answer."""
        return self._stream(calls.stream_answer(question, options), timeout)

    def compare(
        self,
        question: str,
        index_generations: Sequence[int],
        *,
        timeout: float | None = None,
        **options: Unpack[CompareOptions],
    ) -> list[Answer]:
        """Asks 2 to 8 index generations the same question; one answer for each, in their order."""
        return self._run(calls.compare(question, index_generations, options), timeout)

    def retrieve(
        self, query: str | Query, *, timeout: float | None = None, **options: Unpack[RetrievalOptions]
    ) -> Retrieval:
        """Finds the passages for one query."""
        (found,) = self.retrieve_batch([query], timeout=timeout, **options)
        if found.error is not None:
            raise found.error
        return found

    def retrieve_batch(
        self, queries: Sequence[str | Query], *, timeout: float | None = None, **options: Unpack[RetrievalOptions]
    ) -> list[Retrieval]:
        """Finds the passages for up to 128 queries; each fails by itself, see `Retrieval.error`."""
        return self._run(calls.retrieve(queries, options), timeout)

    def embed(
        self,
        texts: Sequence[str],
        *,
        role: TextRole | str = TextRole.QUERY,
        collection: str = "",
        timeout: float | None = None,
    ) -> Embeddings:
        """Embeds up to 128 texts with a collection's encoder (or the server's default one)."""
        return self._run(calls.embed(texts, role, collection), timeout)

    def upsert(
        self,
        passages: Iterable[Passage | EmbeddedPassage],
        *,
        collection: str = "default",
        sources: Iterable[Source] = (),
        replace_sources: bool = False,
        timeout: float = UPSERT_TIMEOUT_SECONDS,
    ) -> UpsertResult:
        """Inserts or replaces passages by id, up to 100,000; when it returns, what has no error is durable.

        Args:
            passages: Read lazily and sent as a stream.
            collection: Where to.
            sources: Sources that are complete with this call; their digest is recorded.
            replace_sources: Delete the passages of `sources` that are not among `passages`.
            timeout: Seconds.
        """
        call = calls.upsert(passages, collection=collection, sources=sources, replace_sources=replace_sources)
        return self._run(call, timeout)

    def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        filter: Filter | None = None,
        collection: str = "default",
        timeout: float | None = None,
    ) -> DeleteResult:
        """Deletes passages by exactly one of ids, sources and filter. What does not exist is no error."""
        return self._run(calls.delete(collection, ids, sources, filter), timeout)

    def get_passages(
        self, ids: Sequence[str], *, collection: str = "default", timeout: float | None = None
    ) -> list[Passage]:
        """The passages of these ids, in their order; ids that do not exist are left out."""
        return self._run(calls.get_passages(ids, collection), timeout)

    def list_passages(
        self,
        *,
        collection: str = "default",
        filter: Filter | None = None,
        page_size: int = 100,
        timeout: float | None = None,
    ) -> Iterator[Passage]:
        """Every passage in id order, read page by page; `timeout` is for one page."""
        return self._pages(lambda token: calls.list_passages(collection, filter, page_size, token), timeout)

    def list_sources(
        self, *, collection: str = "default", prefix: str = "", page_size: int = 100, timeout: float | None = None
    ) -> Iterator[Source]:
        """Every source in name order, read page by page; `timeout` is for one page."""
        return self._pages(lambda token: calls.list_sources(collection, prefix, page_size, token), timeout)

    def create_collection(
        self, name: str, *, timeout: float | None = None, **options: Unpack[CollectionOptions]
    ) -> Collection:
        """Creates a collection; an existing one of the same settings is returned as it is."""
        return self._run(calls.create_collection(CollectionSettings(name, **options)), timeout)

    def configure_collection(
        self,
        name: str,
        *,
        temperature: float | None = None,
        fusion: Fusion | None = None,
        timeout: float | None = None,
    ) -> Collection:
        """Changes temperature and fusion of a collection; what is None stays."""
        return self._run(calls.configure_collection(name, temperature, fusion), timeout)

    def describe_collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """A collection as it is now."""
        return self._run(calls.describe_collection(name), timeout)

    def list_collections(self, *, timeout: float | None = None) -> list[Collection]:
        """The collections in name order."""
        return self._run(calls.list_collections(), timeout)

    def drop_collection(self, name: str, *, timeout: float | None = None) -> int:
        """Drops a collection; returns how many passages went with it."""
        return self._run(calls.drop_collection(name), timeout)

    def send_feedback(
        self,
        answer_id: str,
        rating: Rating | str | None = None,
        *,
        expected_answer: str = "",
        comment: str = "",
        helpful_passage_ids: Sequence[str] = (),
        timeout: float | None = None,
    ) -> str:
        """Records what a person thought of an answer, durably; returns the feedback's id."""
        call = calls.send_feedback(answer_id, rating, expected_answer, comment, helpful_passage_ids)
        return self._run(call, timeout)

    def info(self, *, timeout: float | None = None) -> GatewayInfo:
        """What the gateway is and what stands behind it."""
        return self._run(calls.info(), timeout)

    def is_ready(self, *, timeout: float = 2.0) -> bool:
        """Whether the service at the target says that it will answer. Never raises a RagError."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=READINESS), timeout=timeout)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def _run(self, call: Call[Result], timeout: float | None) -> Result:
        sending = Sending.of(call.request)
        try:
            reply = self._invoke(call, sending, timeout)
        except grpc.RpcError as error:
            raise (sending.failure or error_from_call(error, self.target)) from None
        return call.read(reply)

    def _stream(self, call: Call[Item | None], timeout: float | None) -> Iterator[Item]:
        rpc = self._invoke(call, Sending.of(call.request), timeout)
        try:
            for message in rpc:
                if (item := call.read(message)) is not None:
                    yield item
        except grpc.RpcError as error:
            raise error_from_call(error, self.target) from None
        finally:
            rpc.cancel()

    def _pages(self, page: Callable[[str], Call[Page[Item]]], timeout: float | None) -> Iterator[Item]:
        token = ""
        while True:
            found = self._run(page(token), timeout)
            yield from found.items
            token = found.next_page_token
            if not token:
                return

    def _invoke(self, call: Call[Any], sending: Sending, timeout: float | None) -> Any:
        rpc = getattr(self._stubs[call.service], call.rpc)
        return rpc(sending.request, timeout=self._timeout if timeout is None else timeout, metadata=request_metadata())
