"""The life of a service: start, warm-up, SERVING, SIGTERM, drain, stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from serving.admission import Admission
from serving.config import ServiceConfig, TransportConfig
from serving.health import Canary, Health
from serving.interceptor import RpcInterceptor
from serving.logs import configure_logging, get_logger
from serving.metrics import RpcMetrics, rpc_metrics, start_metrics_listener

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service to be served.

    Attributes:
        name: Full name, e.g. "rag.v1.RetrieverService".
        add: Registers the servicer with a server.
        follows_canary: Whether its health goes with the canary. A gateway's own service does not: while a backend is
            away it still answers, with an error that says who is missing.
    """

    name: str
    add: Callable[[grpc.aio.Server], None]
    follows_canary: bool = True


async def nothing() -> None:
    """A warm-up or close that has nothing to do."""


def build_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("rag-serving")
    except PackageNotFoundError:
        return "0+uninstalled"


def measured_admission(config: ServiceConfig, name: str) -> Admission:
    """The door of service `name`, as wide as its configuration says, told to its metrics."""
    room, metrics = config.admission, rpc_metrics(name)
    return Admission(room.max_items, room.max_tokens, on_change=metrics.set_admitted, on_refuse=metrics.count_refusal)


def server_options(transport: TransportConfig) -> list[tuple[str, int]]:
    """The gRPC server's options. Keepalive admits what `serving.channel` sends."""
    return [
        ("grpc.max_receive_message_length", transport.max_message_bytes),
        ("grpc.max_send_message_length", transport.max_message_bytes),
        ("grpc.max_connection_age_ms", int(transport.max_connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(transport.max_connection_age_grace_seconds * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.so_reuseport", 0),
    ]


async def build_server(
    services: Sequence[Service], metrics: RpcMetrics, transport: TransportConfig
) -> tuple[grpc.aio.Server, Health]:
    """A server with the interceptor, health, reflection and the given services; not yet listening."""
    health = Health([service.name for service in services], metrics)
    interceptor = RpcInterceptor(metrics, lambda: health.is_loaded)
    server = grpc.aio.server(interceptors=[interceptor], options=server_options(transport))
    for service in services:
        service.add(server)
    await health.add_to(server)
    names = [service.name for service in services]
    names += [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    return server, health


async def serve(
    config: ServiceConfig,
    *,
    name: str,
    services: Sequence[Service],
    warm_up: Callable[[], Awaitable[None]] = nothing,
    close: Callable[[], Awaitable[None]] = nothing,
    canary: Canary | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains and stops.

    Args:
        config: Address, limits, times.
        name: "retriever", "generator" or "gateway": prefix of the metrics.
        services: What is served.
        warm_up: Loads and runs once whatever the first request needs; health is NOT_SERVING until it returns, and a
            failure ends the process.
        close: Called after the last call has ended.
        canary: See `Health.watch`.
    """
    configure_logging(config.log_level, config.log_format)
    stop = _stop_signal()
    metrics = rpc_metrics(name)
    metrics.info.info({"version": build_version()})
    server, health = await build_server(services, metrics, config.transport)
    port = _listen(server, config)
    metrics_port = start_metrics_listener(config.host, config.metrics_port)
    await server.start()
    log.info("listening", service=name, address=f"{config.host}:{port}", metrics_port=metrics_port)
    watcher: asyncio.Task[None] | None = None
    try:
        if await _warmed_up(warm_up, stop):
            interval = config.canary_interval_seconds
            await health.loaded(is_ready=canary is None or await health.passes(canary, timeout_seconds=interval))
            log.info("serving", service=name, address=f"{config.host}:{port}")
            if canary is not None:
                follows = [service.name for service in services if service.follows_canary]
                watcher = asyncio.create_task(health.watch(canary, interval_seconds=interval, follows=follows))
            await stop.wait()
            log.info("draining", service=name, seconds=config.drain_seconds)
            await health.draining()
            await asyncio.sleep(config.drain_seconds)
    finally:
        if watcher is not None:
            watcher.cancel()
        await server.stop(config.shutdown_grace_seconds)
        await close()
        log.info("stopped", service=name)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a service's main coroutine, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _listen(server: grpc.aio.Server, config: ServiceConfig) -> int:
    host = f"[{config.host}]" if ":" in config.host and not config.host.startswith("[") else config.host
    try:
        port = server.add_insecure_port(f"{host}:{config.port}")
    except RuntimeError as error:
        raise SystemExit(f"cannot listen on {host}:{config.port}: {error}") from error
    return port


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _warmed_up(warm_up: Callable[[], Awaitable[None]], stop: asyncio.Event) -> bool:
    """Runs the warm-up; False when the process was told to stop meanwhile."""
    loading = asyncio.ensure_future(warm_up())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        return False
    stopping.cancel()
    await loading
    return not stop.is_set()
