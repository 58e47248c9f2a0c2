"""What every call goes through, over a real server."""

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client import REGISTRY

from protos.rag.v1 import generator_pb2, generator_pb2_grpc
from serving.deadline import current_deadline, current_request_id
from serving.server import Service
from serving.testing import test_server as running_server

METHOD = "/rag.v1.GeneratorService/Generate"


class Echo(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self):
        self.cancelled = asyncio.Event()
        self.deadline_seconds = None
        self.request_id = ""

    async def Generate(self, request, context):
        self.deadline_seconds, self.request_id = current_deadline().remaining(), current_request_id()
        if request.input.question == "wait":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return generator_pb2.GenerateResponse()


def serving(echo: Echo) -> Service:
    return Service(
        "rag.v1.GeneratorService",
        lambda server: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(echo, server),
    )


def question(text: str) -> generator_pb2.GenerateRequest:
    return generator_pb2.GenerateRequest(input=generator_pb2.GenerationInput(question=text))


@pytest.fixture
async def stub_and_echo():
    echo = Echo()
    async with running_server(serving(echo)) as running, grpc.aio.insecure_channel(running.address) as channel:
        yield generator_pb2_grpc.GeneratorServiceStub(channel), echo


async def test_deadline_and_request_id_reach_the_domain(stub_and_echo):
    stub, echo = stub_and_echo
    await stub.Generate(question("x"), timeout=20, metadata=(("x-request-id", "abc-1"),))
    assert 10 < echo.deadline_seconds <= 21  # gRPC rounds a timeout up on the wire
    assert echo.request_id == "abc-1"


async def test_a_request_id_that_could_forge_log_lines_is_replaced(stub_and_echo):
    stub, echo = stub_and_echo
    await stub.Generate(question("x"), metadata=(("x-request-id", "a b=c"),))
    assert echo.request_id
    assert " " not in echo.request_id


async def test_without_a_deadline_there_is_none(stub_and_echo):
    stub, echo = stub_and_echo
    await stub.Generate(question("x"))
    assert echo.deadline_seconds == float("inf")


async def test_a_cancelled_call_cancels_the_handler(stub_and_echo):
    stub, echo = stub_and_echo
    call = stub.Generate(question("wait"))
    await asyncio.sleep(0.2)
    call.cancel()
    await asyncio.wait_for(echo.cancelled.wait(), 10)
    assert echo.cancelled.is_set()


async def test_finished_calls_are_counted_by_code(stub_and_echo):
    stub, _ = stub_and_echo

    def count() -> float:
        return REGISTRY.get_sample_value("rag_test_rpcs_total", {"method": METHOD, "code": "OK"}) or 0.0

    before = count()
    await stub.Generate(question("x"))
    assert count() == before + 1


async def test_text_that_is_not_utf8_is_refused_by_the_name_of_its_field():
    async with running_server(serving(Echo())) as running, grpc.aio.insecure_channel(running.address) as channel:
        raw = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        text = b"\xff\xfe"
        inner = b"\x0a" + bytes([len(text)]) + text  # GenerationInput.question
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(b"\x0a" + bytes([len(inner)]) + inner)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "input.question is not valid UTF-8"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(b"\x0a\x7f")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_while_loading_calls_are_unavailable_and_health_says_not_serving():
    async with (
        running_server(serving(Echo()), is_loaded=False) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generator_pb2_grpc.GeneratorServiceStub(channel).Generate(question("x"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        health = health_pb2_grpc.HealthStub(channel)
        expected = {"": "NOT_SERVING", "readiness": "NOT_SERVING", "liveness": "SERVING"}
        for name, state in {**expected, "rag.v1.GeneratorService": "NOT_SERVING"}.items():
            reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status) == state
        await running.health.loaded()
        watch = health.Watch(health_pb2.HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await running.health.draining()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_readiness_follows_the_canary():
    async with running_server(serving(Echo())) as running:
        outcome: list[Exception | None] = [RuntimeError("device lost")]

        async def canary() -> None:
            if outcome[0]:
                raise outcome[0]

        watcher = asyncio.create_task(running.health.watch(canary, interval_seconds=0.02, follows=()))
        await asyncio.sleep(0.2)
        assert not running.health.is_ready
        outcome[0] = None
        await asyncio.sleep(0.2)
        assert running.health.is_ready
        watcher.cancel()


async def test_reflection_lists_the_service_and_knows_its_messages():
    async with running_server(serving(Echo())) as running:

        def look() -> tuple[list[str], str]:
            with grpc.insecure_channel(running.address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                file = database.FindFileContainingSymbol("rag.v1.GeneratorService")
                return list(database.get_services()), file.package

        services, package = await asyncio.to_thread(look)
    assert "rag.v1.GeneratorService" in services
    assert package == "rag.v1"
