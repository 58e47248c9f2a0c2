"""`python -m generator_service`: config → build → serve."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from generator_service.config import GeneratorConfig
from serving.config import load_config
from serving.memory import keep_freed_memory
from serving.server import Service, build_version, measured_admission, run, serve

if TYPE_CHECKING:
    from generator_service.generator import Generator

GENERATOR_SERVICE = "rag.v1.GeneratorService"


class CannotLoad(Exception):
    """The configured checkpoint cannot be served; the message says why."""


def build_generator(config: GeneratorConfig) -> Generator:
    """The generator of a configuration; loads nothing before `start`."""
    # Threads that spin while they wait make two services on the same cores many times slower; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # oneDNN keeps 0.6 MB for every shape of a product, up to 1024 of them, and decode steps come in many shapes.
    for capacity in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(capacity, "256")
    keep_freed_memory()
    import torch

    from generator_service.generator import Generator
    from generator_service.limits import Limits
    from generator_service.metrics import generator_metrics
    from generator_service.models.loading import LoadedGenerator, load_generator
    from generator_service.scheduler import Budget

    torch.set_num_threads(config.num_threads)

    def load() -> LoadedGenerator:
        try:
            return load_generator(
                config.model,
                dtype=config.dtype,
                device=config.device,
                cache_dir=config.cache_dir.expanduser(),
                tokenizer=config.tokenizer,
                question_tokenizer=config.question_tokenizer,
            )
        except (FileNotFoundError, ValueError) as error:
            raise CannotLoad(f"cannot load the generator {config.model!r}: {error}") from error

    return Generator(
        load,
        budget=Budget(**config.engine.model_dump()),
        encoder_cache_bytes=config.encoder_cache_bytes,
        draft_tokens=config.draft_tokens if config.speculates else 0,
        limits=Limits(**config.limits.model_dump()),
        observer=generator_metrics(),
    )


def build_service(config: GeneratorConfig, generator: Generator) -> Service:
    """The gRPC service of a generator."""
    from generator_service.servicer import GeneratorServicer
    from protos.rag.v1 import generator_pb2_grpc

    servicer = GeneratorServicer(
        generator,
        admission=measured_admission(config, "generator"),
        build_version=build_version(),
        max_message_bytes=config.transport.max_message_bytes,
    )
    return Service(
        GENERATOR_SERVICE, lambda server: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, server)
    )


async def main(argv: Sequence[str] | None = None) -> None:
    """Serves until told to stop."""
    config = load_config(GeneratorConfig, argv)
    generator = build_generator(config)
    try:
        await serve(
            config,
            name="generator",
            services=[build_service(config, generator)],
            warm_up=generator.start,
            close=generator.close,
            canary=generator.check,
        )
    except CannotLoad as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    run(main())
