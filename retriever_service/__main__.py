"""`python -m retriever_service`: config → build → serve."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retriever_service.config import RetrieverConfig
from serving.config import load_config
from serving.errors import RagError
from serving.server import Service, build_version, measured_admission, run, serve

if TYPE_CHECKING:
    from retriever_service.retriever import Retriever

RETRIEVER_SERVICE = "rag.v1.RetrieverService"


def build_retriever(config: RetrieverConfig) -> Retriever:
    """The retriever of a configuration. Needs a running event loop; does no I/O before `start`."""
    # Threads that spin while they wait make two services on the same cores many times slower; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from retriever_service.catalog import Catalog
    from retriever_service.dense_index import ExactIndex
    from retriever_service.encoder import BiEncoder, Encoder
    from retriever_service.encoding import Encoding
    from retriever_service.metrics import retriever_metrics
    from retriever_service.retriever import Retriever
    from serving.batching import BatchPolicy

    torch.set_num_threads(config.num_encoder_threads or len(os.sched_getaffinity(0)))

    def load(name: str) -> Encoder:
        passage_name = config.passage_encoder if name == config.encoder else ""
        return BiEncoder(name, passage_name, device=config.device)

    policy = BatchPolicy(config.batching.max_batch_items, config.batching.max_batch_tokens)
    metrics = retriever_metrics()
    encoding = Encoding(load, config.encoder, policy, others=config.encoders, on_batch=metrics.observe_batch)
    return Retriever(
        Catalog(config.data_dir, ExactIndex),
        encoding,
        metrics,
        num_search_threads=config.num_search_threads,
        refresh_wait_seconds=config.refresh_wait_seconds,
    )


def build_service(config: RetrieverConfig, retriever: Retriever) -> Service:
    """The gRPC service of a retriever."""
    from protos.rag.v1 import retriever_pb2_grpc
    from retriever_service.servicer import RetrieverServicer
    from serving.admission import Admission
    from serving.metrics import rpc_metrics

    refused = rpc_metrics("retriever").count_refusal
    servicer = RetrieverServicer(
        retriever,
        admission=measured_admission(config, "retriever"),
        upsert_admission=Admission(config.max_upsert_streams, config.admission.max_tokens, on_refuse=refused),
        build_version=build_version(),
        max_message_bytes=config.transport.max_message_bytes,
    )
    return Service(
        RETRIEVER_SERVICE, lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(servicer, server)
    )


async def main(argv: Sequence[str] | None = None) -> None:
    """Serves until told to stop."""
    config = load_config(RetrieverConfig, argv)
    retriever = build_retriever(config)
    try:
        await serve(
            config,
            name="retriever",
            services=[build_service(config, retriever)],
            warm_up=retriever.start,
            close=retriever.close,
            canary=retriever.encoding.check,
        )
    except RagError as error:  # The data directory is taken, or the encoder is not to be had.
        raise SystemExit(f"retriever: {error.message}") from error


if __name__ == "__main__":
    run(main())
