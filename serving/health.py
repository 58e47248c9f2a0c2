"""Health: what grpc.health.v1 says of this process, kept true by a canary."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]

from serving.logs import get_logger
from serving.metrics import RpcMetrics

LIVENESS, READINESS = "liveness", "readiness"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

log = get_logger(__name__)

Canary = Callable[[], Awaitable[None]]


class Health:
    """The health of one process: `liveness` from the first moment, everything else only while it will answer.

    The empty name stands for the whole server and follows readiness.
    """

    def __init__(self, services: Sequence[str], metrics: RpcMetrics) -> None:
        """Prepares the state: live, not ready.

        Args:
            services: Full names of the gRPC services that stand or fall with this process.
            metrics: Carries the `ready` gauge.
        """
        self._servicer = health_aio.HealthServicer()
        self._names = ("", READINESS)
        self._services = tuple(services)
        self._metrics = metrics
        self.is_loaded = self.is_ready = self._is_draining = False

    async def add_to(self, server: grpc.aio.Server) -> None:
        """Registers grpc.health.v1.Health."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        await self._servicer.set(LIVENESS, _SERVING)
        await self._announce(is_ready=False, names=(*self._names, *self._services))

    async def loaded(self, *, is_ready: bool = True) -> None:
        """Warm-up is over: calls are let in. `is_ready` says how the first canary ended."""
        self.is_loaded = True
        await self._announce(is_ready=True, names=self._services)
        await self._announce(is_ready=is_ready, names=self._names)

    async def draining(self) -> None:
        """Tells callers to go elsewhere; calls that still come are answered."""
        self._is_draining = True
        await self._announce(is_ready=False, names=(*self._names, *self._services))

    async def watch(self, canary: Canary, *, interval_seconds: float, follows: Sequence[str]) -> None:
        """Runs the canary for ever; readiness and the services in `follows` go with its outcome.

        Args:
            canary: One real operation; raises when the service cannot do its work.
            interval_seconds: Between two runs; also the longest a run may take.
            follows: Services that are NOT_SERVING while the canary fails.
        """
        while not self._is_draining:
            is_ready = await self.passes(canary, timeout_seconds=interval_seconds)
            if is_ready != self.is_ready and not self._is_draining:
                log.info("readiness changed", ready=is_ready)
                await self._announce(is_ready=is_ready, names=(*self._names, *follows))
            await asyncio.sleep(interval_seconds)

    async def passes(self, canary: Canary, *, timeout_seconds: float) -> bool:
        """Runs the canary once; whether it came back well."""
        try:
            await asyncio.wait_for(canary(), timeout=timeout_seconds)
        except Exception as error:
            if self.is_ready:
                log.error("canary failed", error=repr(error))
            return False
        return True

    async def _announce(self, *, is_ready: bool, names: Sequence[str]) -> None:
        self.is_ready = is_ready
        self._metrics.ready.set(int(is_ready))
        for name in names:
            await self._servicer.set(name, _SERVING if is_ready else _NOT_SERVING)
