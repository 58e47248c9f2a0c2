"""The gateway's calls of the retriever and the generator: deadline, request id and cancellation go along.

A failed call becomes the error it stands for, with the fields of the caller's own request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway import convert_backends as convert
from gateway import ranking
from gateway.stages import Delta, Generation, Question, Retrieval
from protos.rag.v1 import common_pb2, generator_pb2, generator_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from serving.channel import forwarding_metadata, open_channel
from serving.errors import Deadline, FailedPrecondition, InvalidRequest, NotReady, Overloaded, RagError
from serving.status import ERROR_OF, error_from_rpc

RETRIEVER_SERVICE, GENERATOR_SERVICE = "rag.v1.RetrieverService", "rag.v1.GeneratorService"
INFO_TIMEOUT_SECONDS = 2.0

_RETRIEVAL_FIELDS = frozenset(common_pb2.RetrievalOptions.DESCRIPTOR.fields_by_name)
_DECODING_FIELDS = frozenset(common_pb2.DecodingOptions.DESCRIPTOR.fields_by_name)
_EXPLANATION_FIELDS = frozenset(common_pb2.ExplanationOptions.DESCRIPTOR.fields_by_name)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Backend:
    """A service behind the gateway."""

    def __init__(
        self, name: str, target: str, service: str, *, max_message_bytes: int, on_error: Callable[[str, str], None]
    ) -> None:
        """Prepares the channel; it connects with the first call.

        Args:
            name: "retriever" or "generator".
            target: Its address.
            service: Full name of its gRPC service.
            max_message_bytes: Largest message sent or received.
            on_error: Told (name, reason) of each failed call.
        """
        self._on_error = on_error
        self.name, self.target, self.service = name, target, service
        self.channel = open_channel(target, service=service, max_message_bytes=max_message_bytes)

    async def close(self) -> None:
        """Closes the channel."""
        await self.channel.close(None)

    async def call(self, rpc: Any, request: Any, *, timeout: float | None) -> Any:
        """One unary call of a stub's method.

        Raises:
            RagError: What the failure means.
        """
        try:
            return await rpc(request, timeout=timeout, metadata=forwarding_metadata())
        except grpc.aio.AioRpcError as failure:
            raise self.error(failure) from failure

    async def check(self) -> None:
        """Asks the service how it is.

        Raises:
            NotReady: It is not SERVING, or not there.
        """
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service=self.service)
        try:
            reply = await stub.Check(request, timeout=INFO_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure, callee=f"{self.name} at {self.target}") from failure
        if reply.status != health_pb2.HealthCheckResponse.SERVING:
            raise NotReady(f"{self.name} at {self.target} is not serving")

    def error(self, failure: grpc.aio.AioRpcError) -> RagError:
        """What a failed call means. Where the state of the service is at fault, the message says which service."""
        where = f"{self.name} at {self.target}"
        error = error_from_rpc(failure, callee=where)
        self._on_error(self.name, error.reason)
        if error.reason == "UNREACHABLE":  # To the caller that would be the gateway itself.
            error.reason = f"{self.name.upper()}_UNREACHABLE"
        is_state = type(error) in (NotReady, Overloaded, Deadline, RagError)
        if is_state and not error.message.startswith(where):
            error.message = f"{where}: {error.message}"
        return error


class RetrieverClient:
    """The pipeline's first stage."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stub: Any = retriever_pb2_grpc.RetrieverServiceStub(backend.channel)

    async def retrieve(self, question: Question, *, timeout: float | None) -> Retrieval:
        """Finds the passages for a question; see `gateway.stages.Retriever`."""
        try:
            reply = await self._backend.call(self._stub.Retrieve, convert.retrieve_request(question), timeout=timeout)
            if len(reply.results) != 1:
                raise RagError(f"retriever returned {len(reply.results)} results for one query")
            _raise_for_item(reply.results[0].status)
        except InvalidRequest as error:
            error.field = _retrieval_field(error.field)
            raise
        return convert.retrieval(reply, question)

    async def rank(
        self, question: Question, retrieval: Retrieval, generation: Generation, *, timeout: float | None
    ) -> Generation:
        """Lets the encoder choose among the candidates; see `gateway.stages.Retriever`.

        Raises:
            FailedPrecondition: The collection's encoder is not the one that the passages were embedded with.
        """
        assert retrieval.space is not None
        assert question.ranking is not None
        space, texts = retrieval.space, convert.candidate_texts(generation)
        request = retriever_pb2.EmbedRequest(
            texts=[f"{question.text} {text}".strip() for text in texts],
            role=retriever_pb2.TEXT_ROLE_QUERY,
            collection=_collection(question),
        )
        reply = await self._backend.call(self._stub.Embed, request, timeout=timeout)
        if reply.encoder.digest != space.encoder_digest:
            raise FailedPrecondition(
                "candidate_ranking: the passages were embedded with another encoder than the collection has now",
                reason="ENCODER_DIFFERS",
            )
        if len(reply.vectors) != len(texts):
            raise RagError(f"retriever returned {len(reply.vectors)} vectors for {len(texts)} texts")
        scores = ranking.retrieval_scores(
            convert.vectors(reply.vectors), space.vectors, temperature=space.temperature, is_cosine=space.is_cosine
        )
        log_probabilities = convert.candidate_log_probabilities(generation)
        ranked = ranking.rank_candidates(log_probabilities, scores.tolist(), question.ranking)
        return convert.ranked_generation(generation, ranked)

    async def state(self, question: Question, *, timeout: float | None) -> str:
        """Names what the question would search now; see `gateway.stages.Retriever`."""
        request = retriever_pb2.GetCollectionStateRequest(
            collection=_collection(question), index_generation=question.options.retrieval.index_generation
        )
        reply = await self._backend.call(self._stub.GetCollectionState, request, timeout=timeout)
        return str(reply.collection_state)

    async def info(self) -> retriever_pb2.RetrieverServiceGetInfoResponse | None:
        """What the retriever says of itself; None when it does not answer."""
        reply: retriever_pb2.RetrieverServiceGetInfoResponse | None = await _info(
            self._backend, self._stub, retriever_pb2.RetrieverServiceGetInfoRequest()
        )
        return reply


class GeneratorClient:
    """The pipeline's second stage."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stub: Any = generator_pb2_grpc.GeneratorServiceStub(backend.channel)

    async def generate(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Generation:
        """Decodes an answer; see `gateway.stages.Generator`."""
        request = convert.generate_request(generator_pb2.GenerateRequest, question, retrieval)
        try:
            reply = await self._backend.call(self._stub.Generate, request, timeout=timeout)
        except InvalidRequest as error:
            error.field = _generation_field(error.field)
            raise
        return convert.generation(reply)

    async def stream(
        self, question: Question, retrieval: Retrieval, *, timeout: float | None
    ) -> AsyncGenerator[Delta | Generation, None]:
        """Decodes an answer and sends its tokens as they come; closing the generator cancels the decoding."""
        request = convert.generate_request(generator_pb2.StreamGenerateRequest, question, retrieval)
        rpc = self._stub.StreamGenerate(request, timeout=timeout, metadata=forwarding_metadata())
        try:
            async for message in rpc:
                if message.HasField("delta"):
                    yield Delta(message.delta)
                elif message.HasField("final"):
                    yield convert.generation(message.final)
        except grpc.aio.AioRpcError as failure:
            error = self._backend.error(failure)
            if isinstance(error, InvalidRequest):
                error.field = _generation_field(error.field)
            raise error from failure
        finally:
            rpc.cancel()

    async def rerank(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Retrieval:
        """Reads the hits again; see `gateway.stages.Generator`."""
        assert question.rerank is not None
        scores = await self.question_likelihoods(question.text, retrieval.passages, timeout=timeout)
        return convert.reranked_retrieval(retrieval, ranking.rerank_hits(scores, question.rerank))

    async def question_likelihoods(
        self, question: str, passages: Sequence[common_pb2.RetrievedPassage], *, timeout: float | None
    ) -> Sequence[float]:
        """The natural log of p(question | passage), for each passage.

        Raises:
            RagError: What the failure means.
        """
        request = convert.score_request(question, passages)
        try:
            reply = await self._backend.call(self._stub.Score, request, timeout=timeout)
        except InvalidRequest as error:
            error.field = _generation_field(error.field)
            raise
        if len(reply.scores) != 1 or len(reply.scores[0].passage_log_probabilities) != len(passages):
            raise RagError("generator did not score the question once for each passage")
        return list(reply.scores[0].passage_log_probabilities)

    async def digest(self, *, timeout: float | None) -> str:
        """The generator's digest; see `gateway.stages.Generator`."""
        request = generator_pb2.GeneratorServiceGetInfoRequest()
        reply = await self._backend.call(self._stub.GetInfo, request, timeout=timeout)
        return str(reply.generator.digest)

    async def info(self) -> generator_pb2.GeneratorServiceGetInfoResponse | None:
        """What the generator says of itself; None when it does not answer."""
        reply: generator_pb2.GeneratorServiceGetInfoResponse | None = await _info(
            self._backend, self._stub, generator_pb2.GeneratorServiceGetInfoRequest()
        )
        return reply


async def _info(backend: Backend, stub: Any, request: Any) -> Any:
    try:
        return await backend.call(stub.GetInfo, request, timeout=INFO_TIMEOUT_SECONDS)
    except RagError:
        return None


def _collection(question: Question) -> str:
    return str(question.options.retrieval.collection or convert.DEFAULT_COLLECTION)


def _raise_for_item(status: common_pb2.Status) -> None:
    if status.code:
        kind = ERROR_OF.get(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), RagError)
        raise kind(status.message, reason=status.reason, field="queries" if kind is InvalidRequest else None)


def _retrieval_field(field: str | None) -> str | None:
    """A field of a RetrieveRequest as the asker of a question knows it."""
    path = (field or "").removeprefix("options.")
    if path.startswith(("quer", "text")):
        return "question"
    return f"options.retrieval.{path}" if _head(path) in _RETRIEVAL_FIELDS else field


def _generation_field(field: str | None) -> str | None:
    """A field of a GenerateRequest as the asker of a question knows it."""
    if field in ("decoding", "explanation"):
        return f"options.{field}"
    path = (field or "").removeprefix("input.").removeprefix("decoding.").removeprefix("explanation.")
    if _head(path) in _DECODING_FIELDS:
        return f"options.decoding.{path}"
    if _head(path) in _EXPLANATION_FIELDS:
        return f"options.explanation.{path}"
    return path or field


def _head(path: str) -> str:
    return path.split(".")[0].split("[")[0]
