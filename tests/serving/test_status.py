"""Errors keep their meaning on the way through gRPC."""

import grpc
import grpc.aio
import pytest

from protos.rag.v1 import generator_pb2, generator_pb2_grpc
from serving import errors, status
from serving.server import Service
from serving.testing import test_server as running_server


def failing(error: Exception) -> Service:
    class Servicer(generator_pb2_grpc.GeneratorServiceServicer):
        async def Generate(self, request, context):
            raise error

        async def StreamGenerate(self, request, context):
            yield generator_pb2.StreamGenerateResponse()
            raise error

    return Service(
        "rag.v1.GeneratorService",
        lambda server: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(Servicer(), server),
    )


async def call(error: Exception) -> grpc.aio.AioRpcError:
    async with running_server(failing(error)) as running, grpc.aio.insecure_channel(running.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generator_pb2_grpc.GeneratorServiceStub(channel).Generate(generator_pb2.GenerateRequest())
    return caught.value


def test_every_error_of_the_closed_list_has_a_status_and_comes_back_as_itself():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RagError)}
    assert kinds == set(status.CODE_OF)
    assert len(set(status.CODE_OF.values())) == len(kinds)


@pytest.mark.parametrize("kind", sorted(status.CODE_OF, key=lambda kind: kind.__name__))
async def test_reason_field_and_retry_time_survive_the_wire(kind):
    sent = kind("top_k must be at most 100", reason="TOO_LARGE", field="options.top_k", retry_after_seconds=0.25)
    received = status.error_from_rpc(await call(sent))
    assert type(received) is kind
    assert (received.message, received.reason, received.field) == (sent.message, sent.reason, sent.field)
    assert received.retry_after_seconds == pytest.approx(0.25)


async def test_an_unexpected_error_is_internal_and_tells_nothing_but_the_request_id():
    error = await call(ZeroDivisionError("secret path /etc/x"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "request id" in error.details()


async def test_an_error_after_the_first_message_of_a_stream_keeps_its_status():
    service = failing(errors.Overloaded("no room", retry_after_seconds=1))
    async with running_server(service) as running, grpc.aio.insecure_channel(running.address) as channel:
        replies = generator_pb2_grpc.GeneratorServiceStub(channel).StreamGenerate(generator_pb2.StreamGenerateRequest())
        received = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for reply in replies:
                received.append(reply)
    assert len(received) == 1
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_nobody_listening_is_not_ready_and_names_the_callee():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generator_pb2_grpc.GeneratorServiceStub(channel).Generate(generator_pb2.GenerateRequest(), timeout=5)
    error = status.error_from_rpc(caught.value, callee="generator at 127.0.0.1:1")
    assert isinstance(error, errors.NotReady)
    assert error.reason == "UNREACHABLE"
    assert "generator at 127.0.0.1:1 is not reachable" in error.message
