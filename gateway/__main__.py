"""`python -m gateway`: config → build → serve."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway import passthrough
from gateway.backends import Backends
from gateway.cache import AnswerCache
from gateway.clients import RETRIEVER_SERVICE, GeneratorClient, RetrieverClient
from gateway.config import GatewayConfig
from gateway.feedback import FeedbackLog
from gateway.metrics import gateway_metrics
from gateway.pipeline import Pipeline
from gateway.run import Budget
from gateway.servicer import GatewayServicer
from protos.rag.v1 import gateway_pb2_grpc
from serving.config import load_config
from serving.errors import RagError
from serving.logs import get_logger
from serving.server import Service, measured_admission, run, serve

GATEWAY_SERVICE = "rag.v1.GatewayService"
_WAIT_SECONDS = 0.2

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything the process holds."""

    services: tuple[Service, ...]
    backends: Backends
    feedback_log: FeedbackLog
    config: GatewayConfig

    async def warm_up(self) -> None:
        """Opens the feedback file and waits for the backends, for a while."""
        await self.feedback_log.open()
        try:
            async with asyncio.timeout(self.config.backend_wait_seconds):
                await self._backends_serving()
        except TimeoutError:
            log.warning("serving without every backend", waited_seconds=self.config.backend_wait_seconds)

    async def _backends_serving(self) -> None:
        told = ""
        while True:
            try:
                return await self.backends.check()
            except RagError as error:
                backend = error.message.partition(" is ")[0]
                if backend != told:
                    log.info("waiting", backend=backend, error=error.message)
                told = backend
                await asyncio.sleep(_WAIT_SECONDS)


def build(config: GatewayConfig) -> Gateway:
    """The gateway of a configuration. Needs a running event loop, does no I/O."""
    metrics = gateway_metrics()
    backends = Backends(
        config.retriever,
        config.generator,
        config.retriever_writer,
        max_message_bytes=config.transport.max_message_bytes,
        on_error=metrics.downstream_error,
    )
    retriever, generator = RetrieverClient(backends.retriever), GeneratorClient(backends.generator)
    kept, cache = config.answer_cache, None
    if kept.max_bytes:
        cache = AnswerCache(retriever, generator, metrics, max_bytes=kept.max_bytes, ttl_seconds=kept.ttl_seconds)
    pipeline = Pipeline(
        retriever,
        generator,
        observer=metrics,
        admission=measured_admission(config, "gateway"),
        budget=Budget(config.default_timeout_seconds, config.generate_reserve_seconds, config.reply_reserve_seconds),
        min_confidence=config.min_confidence,
        cache=cache,
    )
    feedback_log = FeedbackLog(config.feedback_path)
    servicer = GatewayServicer(pipeline, feedback_log, retriever, generator, config)
    # Neither goes NOT_SERVING with a backend: their errors say which one is missing. Readiness does.
    services = (
        Service(
            GATEWAY_SERVICE,
            lambda server: gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server),
            follows_canary=False,
        ),
        Service(
            RETRIEVER_SERVICE,
            lambda server: passthrough.add_to(server, backends.retriever, backends.writer, generator),
            follows_canary=False,
        ),
    )
    return Gateway(services, backends, feedback_log, config)


async def main(argv: Sequence[str] | None = None) -> None:
    """Serves until told to stop."""
    config = load_config(GatewayConfig, argv)
    gateway = build(config)
    await serve(
        config,
        name="gateway",
        services=gateway.services,
        warm_up=gateway.warm_up,
        close=gateway.backends.close,
        canary=gateway.backends.check,
    )


if __name__ == "__main__":
    run(main())
