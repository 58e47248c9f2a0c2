import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.rag.v1 import gateway_pb2
from serving.errors import NotReady
from serving.health import READINESS


async def status(house, service):
    reply = await health_pb2_grpc.HealthStub(house.channel).Check(health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


async def test_the_gateway_is_ready_while_both_backends_are(house):
    await house.gateway.backends.check()
    assert await status(house, READINESS) == "SERVING"


async def test_a_draining_backend_is_named_by_the_canary(house):
    await house.generator_server.health.draining()
    with pytest.raises(NotReady, match="generator at "):
        await house.gateway.backends.check()


async def test_when_a_backend_leaves_readiness_goes_but_calls_still_say_who_is_missing(house):
    await house.retriever_server.server.stop(None)
    watch = asyncio.create_task(
        house.gateway_server.health.watch(house.gateway.backends.check, interval_seconds=0.5, follows=[])
    )
    try:
        async with asyncio.timeout(20):
            watching = health_pb2_grpc.HealthStub(house.channel).Watch(health_pb2.HealthCheckRequest(service=READINESS))
            async for reply in watching:
                if reply.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    break
        assert await status(house, "rag.v1.GatewayService") == "SERVING"
        with pytest.raises(grpc.aio.AioRpcError, match=r"retriever at .* is not reachable"):
            await house.answers.Answer(gateway_pb2.AnswerRequest(question="q"))
    finally:
        watch.cancel()
