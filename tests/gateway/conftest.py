"""A gateway over real gRPC in front of a scripted retriever and a scripted generator."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from gateway.__main__ import Gateway, build
from gateway.config import AnswerCacheConfig, GatewayConfig
from protos.rag.v1 import (
    gateway_pb2_grpc,
    generator_pb2_grpc,
    retriever_pb2_grpc,
)
from retriever_service.__main__ import build_retriever, build_service
from retriever_service.config import RetrieverConfig
from serving.server import Service
from serving.testing import TestServer, test_server
from tests.gateway.fakes import FakeGenerator, FakeRetriever

CACHE = {"answer_cache": AnswerCacheConfig(max_bytes=1_000_000)}


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
