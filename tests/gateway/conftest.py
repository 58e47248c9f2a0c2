"""A gateway over real gRPC in front of a scripted retriever and a scripted generator."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from gateway.__main__ import Gateway, build
from gateway.config import AnswerCacheConfig, GatewayConfig
from protos.rag.v1 import (
    common_pb2,
    gateway_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)
from retriever_service.__main__ import build_retriever, build_service
from retriever_service.config import RetrieverConfig
from serving.server import Service
from serving.testing import TestServer, test_server

PRIORS = (0.5, 0.3, 0.2)
CACHE = {"answer_cache": AnswerCacheConfig(max_bytes=1_000_000)}


def vector(values: list[float]) -> common_pb2.Vector:
    """An embedding on the wire."""
    return common_pb2.Vector(data=np.array(values, "<f4").tobytes(), dim=len(values))


async def no_hook() -> None:
    """Nothing happens."""


@dataclass
class Seen:
    """What one call of a backend brought along."""

    request: Any
    time_remaining: float | None
    metadata: dict[str, str]


@dataclass
class Script:
    """What a fake backend does, and what it saw."""

    hook: Callable[[], Awaitable[None]] = no_hook
    seen: list[Seen] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, request: Any, context: Any) -> None:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.seen.append(Seen(request, context.time_remaining(), metadata))
        try:
            await self.hook()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class FakeRetriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Finds three fixed passages unless told otherwise."""

    def __init__(self) -> None:
        self.script = Script()
        self.num_passages = 3
        self.item_status = common_pb2.Status()
        self.passage_vectors = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
        self.text_vectors: dict[str, list[float]] = {}  # By the last word of the text.
        self.metric = retriever_pb2.METRIC_COSINE
        self.encoder_digest = "encoder-1"
        self.embedded: list[retriever_pb2.EmbedRequest] = []
        self.state = ""
        self.num_state_calls = 0
        self.state_error: Exception | None = None

    async def Retrieve(self, request: retriever_pb2.RetrieveRequest, context: Any) -> retriever_pb2.RetrieveResponse:
        await self.script.play(request, context)
        passages = [
            common_pb2.RetrievedPassage(
                passage=common_pb2.Passage(id=f"p{i}", title=f"Title {i}", text=f"Text {i}", source=f"source{i}.md"),
                rank=i + 1,
                score=3.0 - i,
                dense_score=0.9 - i / 10,
                log_prior=math.log(PRIORS[i]),
                vector=vector(self.passage_vectors[i]) if request.options.include_vectors else None,
            )
            for i in range(self.num_passages)
        ]
        return retriever_pb2.RetrieveResponse(
            results=[retriever_pb2.QueryResult(status=self.item_status, passages=passages) for _ in request.queries],
            provenance=common_pb2.Provenance(
                collection="default",
                index_generation=request.options.index_generation or 7,
                encoder="fake-encoder",
                encoder_digest="encoder-1",
                collection_state=self.state,
            ),
            temperature=0.5,
            metric=self.metric,
            timings=[
                common_pb2.StageTiming(stage="STAGE_QUEUE", duration_seconds=0.25),
                common_pb2.StageTiming(stage="STAGE_SEARCH", duration_seconds=0.5),
            ],
        )

    async def Embed(self, request: retriever_pb2.EmbedRequest, context: Any) -> retriever_pb2.EmbedResponse:
        self.embedded.append(request)
        return retriever_pb2.EmbedResponse(
            vectors=[vector(self.text_vectors[text.split()[-1]]) for text in request.texts],
            encoder=common_pb2.ModelInfo(digest=self.encoder_digest),
        )

    async def GetCollectionState(self, request: Any, context: Any) -> retriever_pb2.GetCollectionStateResponse:
        self.num_state_calls += 1
        if self.state_error is not None:
            raise self.state_error
        return retriever_pb2.GetCollectionStateResponse(collection_state=self.state)

    async def Upsert(self, request_iterator: Any, context: Any) -> retriever_pb2.UpsertResponse:
        ids = [item.passage.id async for message in request_iterator for item in message.passages]
        await self.script.play(ids, context)
        await context.send_initial_metadata((("written-by", "fake"),))
        return retriever_pb2.UpsertResponse(sequence=41, num_inserted=len(ids))

    async def ExportCollection(
        self, request: retriever_pb2.ExportCollectionRequest, context: Any
    ) -> AsyncIterator[retriever_pb2.ExportCollectionResponse]:
        await self.script.play(request, context)
        for total in (1, 2, 3):
            yield retriever_pb2.ExportCollectionResponse(num_total=total)

    async def GetInfo(self, request: Any, context: Any) -> retriever_pb2.RetrieverServiceGetInfoResponse:
        return retriever_pb2.RetrieverServiceGetInfoResponse(service=common_pb2.ServiceInfo(service="retriever"))


class FakeGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    """Always answers "Paris", mostly because of the second passage."""

    def __init__(self) -> None:
        self.script = Script()
        self.confidence = 0.8
        self.deltas = ("Par", "is")
        self.candidates: list[common_pb2.Hypothesis] | None = None
        self.digest = ""
        self.likelihoods: dict[str, float] = {}  # log p(question | passage) by passage id.
        self.scored: list[generator_pb2.ScoreRequest] = []

    def _reply(self, request: Any) -> generator_pb2.GenerateResponse:
        posteriors = (0.1, 0.7, 0.2)[: len(request.input.passages)]
        return generator_pb2.GenerateResponse(
            generation=generator_pb2.Generation(
                text="Paris",
                raw_text="paris",
                finish_reason="FINISH_REASON_END_OF_SEQUENCE",
                log_probability=-0.5,
                confidence=self.confidence,
                posteriors=posteriors,
                hypotheses=[common_pb2.Hypothesis(text="Paris", posteriors=posteriors)]
                if self.candidates is None
                else self.candidates,
                model=request.decoding.model or "DECODING_MODEL_RAG_SEQUENCE",
            ),
            provenance=common_pb2.Provenance(generator="fake-generator", generator_digest=self.digest),
            timings=[
                common_pb2.StageTiming(stage="STAGE_QUEUE", duration_seconds=0.25),
                common_pb2.StageTiming(stage="STAGE_DECODE", duration_seconds=0.125),
                common_pb2.StageTiming(stage="STAGE_TOTAL", duration_seconds=9.0),
            ],
        )

    async def Generate(self, request: generator_pb2.GenerateRequest, context: Any) -> generator_pb2.GenerateResponse:
        await self.script.play(request, context)
        return self._reply(request)

    async def StreamGenerate(
        self, request: generator_pb2.StreamGenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.StreamGenerateResponse]:
        for text in self.deltas:
            yield generator_pb2.StreamGenerateResponse(delta=generator_pb2.TokenDelta(text=text))
        await self.script.play(request, context)
        yield generator_pb2.StreamGenerateResponse(final=self._reply(request))

    async def Score(self, request: generator_pb2.ScoreRequest, context: Any) -> generator_pb2.ScoreResponse:
        self.scored.append(request)
        scores = [self.likelihoods[passage.id] for passage in request.input.passages]
        return generator_pb2.ScoreResponse(scores=[generator_pb2.AnswerScore(passage_log_probabilities=scores)])

    async def GetInfo(self, request: Any, context: Any) -> generator_pb2.GeneratorServiceGetInfoResponse:
        return generator_pb2.GeneratorServiceGetInfoResponse(
            service=common_pb2.ServiceInfo(service="generator"), generator=common_pb2.ModelInfo(digest=self.digest)
        )


@dataclass
class House:
    """The gateway and what stands behind it."""

    retriever: FakeRetriever
    generator: FakeGenerator
    retriever_server: TestServer
    generator_server: TestServer
    gateway: Gateway
    gateway_server: TestServer
    channel: grpc.aio.Channel
    answers: Any
    retrieval: Any


@pytest.fixture(name="open_house")
def house_opener() -> Callable[..., AbstractAsyncContextManager[House]]:
    return open_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def caching_house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, **CACHE) as opened:
        opened.retriever.state, opened.generator.digest = "state-1", "generator-1"
        yield opened


@pytest.fixture
async def caching_house_with_a_real_retriever(tmp_path: Path) -> AsyncIterator[House]:
    retriever_config = RetrieverConfig(data_dir=tmp_path / "retriever", num_encoder_threads=1)
    retriever = build_retriever(retriever_config)
    service = build_service(retriever_config, retriever)
    async with (
        test_server(service, name="test", warm_up=retriever.start, close=retriever.close) as server,
        open_house(tmp_path, retriever=server.address, **CACHE) as opened,
    ):
        opened.generator.digest = "generator-1"
        yield opened


@asynccontextmanager
async def open_house(tmp_path: Path, **configured: Any) -> AsyncIterator[House]:
    retriever, generator = FakeRetriever(), FakeGenerator()
    add_retriever = retriever_pb2_grpc.add_RetrieverServiceServicer_to_server
    add_generator = generator_pb2_grpc.add_GeneratorServiceServicer_to_server
    async with AsyncExitStack() as stack:
        behind = [
            Service("rag.v1.RetrieverService", lambda server: add_retriever(retriever, server)),
            Service("rag.v1.GeneratorService", lambda server: add_generator(generator, server)),
        ]
        retriever_server, generator_server = [
            await stack.enter_async_context(test_server(service, name="test")) for service in behind
        ]
        defaults: dict[str, Any] = {
            "retriever": retriever_server.address,
            "generator": generator_server.address,
            "feedback_path": tmp_path / "feedback" / "feedback.jsonl",
            "backend_wait_seconds": 5.0,
        }
        config = GatewayConfig(**defaults | configured)
        gateway = build(config)
        gateway_server = await stack.enter_async_context(
            test_server(*gateway.services, name="gateway", warm_up=gateway.warm_up, close=gateway.backends.close)
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway_server.address))
        yield House(
            retriever=retriever,
            generator=generator,
            retriever_server=retriever_server,
            generator_server=generator_server,
            gateway=gateway,
            gateway_server=gateway_server,
            channel=channel,
            answers=gateway_pb2_grpc.GatewayServiceStub(channel),
            retrieval=retriever_pb2_grpc.RetrieverServiceStub(channel),
        )
