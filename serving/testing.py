"""An in-process server for tests: the real interceptor, health and reflection on a free loopback port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio

from serving.config import TransportConfig
from serving.health import Health
from serving.metrics import rpc_metrics
from serving.server import Service, build_server, nothing


@dataclass(frozen=True, slots=True)
class TestServer:
    """A running server."""

    __test__ = False

    address: str
    server: grpc.aio.Server
    health: Health


@asynccontextmanager
async def test_server(
    *services: Service,
    name: str = "test",
    warm_up: Callable[[], Awaitable[None]] = nothing,
    close: Callable[[], Awaitable[None]] = nothing,
    is_loaded: bool = True,
    transport: TransportConfig | None = None,
) -> AsyncIterator[TestServer]:
    """Serves `services` while the context lasts.

    Args:
        *services: What is served.
        name: Prefix of the metrics.
        warm_up: Awaited before the server is ready.
        close: Awaited after it has stopped.
        is_loaded: False leaves it loading: calls are refused as NotReady.
        transport: Limits; the defaults when None.
    """
    server, health = await build_server(services, rpc_metrics(name), transport or TransportConfig())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await warm_up()
        if is_loaded:
            await health.loaded()
        yield TestServer(f"127.0.0.1:{port}", server, health)
    finally:
        await server.stop(None)
        await close()


test_server.__test__ = False  # type: ignore[attr-defined]
