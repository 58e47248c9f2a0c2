"""The gateway's calls of the retriever and the generator: deadline, request id and cancellation go along.

A failed call becomes the error it stands for, with the fields of the caller's own request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway import convert_generator, convert_retriever, ranking
from gateway.prompts import Checkpoint
from gateway.stages import Delta, Generation, Question, Retrieval
from protos.rag.v1 import common_pb2, generator_pb2, generator_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from serving.channel import forwarding_metadata, open_channel
from serving.errors import Deadline, FailedPrecondition, InvalidRequest, NotFound, NotReady, Overloaded, RagError
from serving.status import ERROR_OF, error_from_rpc

RETRIEVER_SERVICE, GENERATOR_SERVICE = "rag.v1.RetrieverService", "rag.v1.GeneratorService"
INFO_TIMEOUT_SECONDS = 2.0

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

    async def retrieve(
        self, question: Question, queries: Sequence[str], *, timeout: float | None
    ) -> Sequence[Retrieval]:
        """Finds passages for each query; see `gateway.stages.Retriever`."""
        request = convert_retriever.retrieve_request(question, queries)
        try:
            reply = await self._backend.call(self._stub.Retrieve, request, timeout=timeout)
            if len(reply.results) != len(queries):
                raise RagError(f"retriever returned {len(reply.results)} results for {len(queries)} queries")
            for result in reply.results:
                _raise_for_item(result.status)
        except InvalidRequest as error:
            error.field = convert_retriever.asked_field(error.field)
            raise
        return convert_retriever.retrievals(reply, question)

    async def source(self, question: Question, name: str, *, max_passages: int, timeout: float | None) -> Retrieval:
        """Lists passages of a source; see `gateway.stages.Retriever`.

        Raises:
            NotFound: It has none.
        """
        state = await self.state(question, timeout=timeout)  # First: what is written meanwhile shows as another one.
        passages: list[common_pb2.Passage] = []
        request = convert_retriever.source_request(question, name, max_passages)
        while len(passages) < max_passages:
            page = await self._backend.call(self._stub.ListPassages, request, timeout=timeout)
            passages += page.passages
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        if not passages:
            raise NotFound(
                f"collection {convert_retriever.collection(question)!r} has no source {name!r}", reason="NO_SOURCE"
            )
        return convert_retriever.source_retrieval(passages[:max_passages], state, question)

    async def rank(
        self, question: Question, retrieval: Retrieval, generation: Generation, *, timeout: float | None
    ) -> Generation:
        """Lets the encoder choose among the candidates; see `gateway.stages.Retriever`.

        Raises:
            FailedPrecondition: The collection's encoder is not the one that the passages were embedded with.
        """
        assert retrieval.space is not None
        assert question.ranking is not None
        space, texts = retrieval.space, convert_generator.candidate_texts(generation)
        request = retriever_pb2.EmbedRequest(
            texts=[f"{question.text} {text}".strip() for text in texts],
            role=retriever_pb2.TEXT_ROLE_QUERY,
            collection=convert_retriever.collection(question),
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
            convert_retriever.vectors(reply.vectors),
            space.vectors,
            temperature=space.temperature,
            is_cosine=space.is_cosine,
        )
        log_probabilities = convert_generator.candidate_log_probabilities(generation)
        ranked = ranking.rank_candidates(log_probabilities, scores.tolist(), question.ranking)
        return convert_generator.ranked_generation(generation, ranked)

    async def state(self, question: Question, *, timeout: float | None) -> str:
        """Names what the question would search now; see `gateway.stages.Retriever`."""
        request = retriever_pb2.GetCollectionStateRequest(
            collection=convert_retriever.collection(question),
            index_generation=question.options.retrieval.index_generation,
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
        request = convert_generator.generate_request(generator_pb2.GenerateRequest, question, retrieval)
        return convert_generator.generation(await self._call(self._stub.Generate, request, timeout))

    async def rewrite(self, prompt: str, *, timeout: float | None) -> str:
        """Decodes without passages; see `gateway.stages.Generator`."""
        reply = await self._call(self._stub.Generate, convert_generator.rewrite_request(prompt), timeout)
        return str(reply.generation.text)

    async def choose(
        self, question: Question, retrieval: Retrieval, labels: Sequence[str], *, timeout: float | None
    ) -> Generation:
        """Scores the labels; see `gateway.stages.Generator`."""
        request = convert_generator.choose_request(question, retrieval, labels)
        return convert_generator.choice(await self._call(self._stub.Score, request, timeout), labels, question)

    async def stream(
        self, question: Question, retrieval: Retrieval, *, timeout: float | None
    ) -> AsyncGenerator[Delta | Generation, None]:
        """Decodes an answer and sends its tokens as they come; closing the generator cancels the decoding."""
        request = convert_generator.generate_request(generator_pb2.StreamGenerateRequest, question, retrieval)
        rpc = self._stub.StreamGenerate(request, timeout=timeout, metadata=forwarding_metadata())
        try:
            async for message in rpc:
                if message.HasField("delta"):
                    yield Delta(message.delta)
                elif message.HasField("final"):
                    yield convert_generator.generation(message.final)
        except grpc.aio.AioRpcError as failure:
            error = self._backend.error(failure)
            if isinstance(error, InvalidRequest):
                error.field = convert_generator.asked_field(error.field)
            raise error from failure
        finally:
            rpc.cancel()

    async def rerank(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Retrieval:
        """Reads the hits again; see `gateway.stages.Generator`.

        Raises:
            FailedPrecondition: ANSWERABILITY, and the generator was not taught to answer nothing.
        """
        how, passages = question.rerank, retrieval.passages
        assert how is not None
        try:
            reply = await self._call(self._stub.Score, convert_generator.rerank_request(question, retrieval), timeout)
        except FailedPrecondition as error:
            error.message, error.field = f"rerank by {how.method}: {error.message}", "options.retrieval.rerank.method"
            raise
        if len(reply.scores) != 1 or len(reply.scores[0].passage_log_probabilities) != len(passages):
            raise RagError("generator did not score each passage once")
        scores = list(reply.scores[0].passage_log_probabilities)
        if how.method is ranking.RerankMethod.QUESTION_LIKELIHOOD:
            hits = ranking.rerank_by_likelihood(scores, how)
        elif not retrieval.temperature > 0:
            raise RagError("the retriever does not say the temperature of its prior")
        else:
            hits = ranking.rerank_by_answerability(
                scores,
                retrieval.log_priors,
                how,
                first_score=passages[0].score,
                temperature=retrieval.temperature,
            )
        return convert_retriever.reranked_retrieval(retrieval, hits)

    async def checkpoint(self, *, timeout: float | None) -> Checkpoint:
        """What its checkpoint says of tasks; see `gateway.stages.Generator`."""
        request = generator_pb2.GeneratorServiceGetInfoRequest()
        return convert_generator.checkpoint(await self._backend.call(self._stub.GetInfo, request, timeout=timeout))

    async def info(self) -> generator_pb2.GeneratorServiceGetInfoResponse | None:
        """What the generator says of itself; None when it does not answer."""
        reply: generator_pb2.GeneratorServiceGetInfoResponse | None = await _info(
            self._backend, self._stub, generator_pb2.GeneratorServiceGetInfoRequest()
        )
        return reply

    async def _call(self, rpc: Any, request: Any, timeout: float | None) -> Any:
        try:
            return await self._backend.call(rpc, request, timeout=timeout)
        except InvalidRequest as error:
            error.field = convert_generator.asked_field(error.field)
            raise


async def _info(backend: Backend, stub: Any, request: Any) -> Any:
    try:
        return await backend.call(stub.GetInfo, request, timeout=INFO_TIMEOUT_SECONDS)
    except RagError:
        return None


def _raise_for_item(status: common_pb2.Status) -> None:
    if status.code:
        kind = ERROR_OF.get(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), RagError)
        raise kind(status.message, reason=status.reason, field="queries" if kind is InvalidRequest else None)
