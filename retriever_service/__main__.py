"""`python -m retriever_service`: config → build → serve."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from retriever_service.config import RetrieverConfig
from serving.config import load_config
from serving.errors import RagError
from serving.memory import keep_freed_memory
from serving.server import Service, build_version, measured_admission, run, serve

if TYPE_CHECKING:
    from retriever_service.backends.protocol import Backend
    from retriever_service.replicas.follower import Follower
    from retriever_service.replicas.publisher import Publisher
    from retriever_service.retriever import Retriever

RETRIEVER_SERVICE = "rag.v1.RetrieverService"


def build_retriever(config: RetrieverConfig) -> Retriever:
    """The retriever of a configuration. Needs a running event loop; does no I/O before `start`."""
    # Threads that spin while they wait make two services on the same cores many times slower; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    import torch

    from retriever_service.bi_encoder import BiEncoder
    from retriever_service.cross_encoder import CrossEncoder
    from retriever_service.encoder import Encoder
    from retriever_service.encoding import Encoding
    from retriever_service.metrics import retriever_metrics
    from retriever_service.reranker import Reranker
    from retriever_service.reranking import Reranking
    from retriever_service.retriever import Retriever
    from serving.batching import BatchPolicy

    torch.set_num_threads(config.num_encoder_threads or len(os.sched_getaffinity(0)))

    def load(name: str) -> Encoder:
        passage_name, tokenizer = "", ""
        if name == config.encoder:
            passage_name, tokenizer = config.passage_encoder, config.encoder_tokenizer
        return BiEncoder(
            name,
            passage_name,
            tokenizer=tokenizer,
            device=config.device,
            dtype=config.encoder_dtype,
            cache_dir=config.cache_dir,
        )

    def load_reranker() -> Reranker:
        return CrossEncoder(config.reranker, device=config.device)

    policy = BatchPolicy(config.batching.max_batch_items, config.batching.max_batch_tokens)
    metrics = retriever_metrics()
    encoding = Encoding(load, config.encoder, policy, others=config.encoders, on_batch=metrics.observe_batch)
    return Retriever(
        _build_backend(config),
        encoding,
        metrics,
        reranking=Reranking(load_reranker if config.reranker else None, policy),
        num_search_threads=config.num_search_threads,
        refresh_wait_seconds=config.refresh_wait_seconds,
    )


def _build_backend(config: RetrieverConfig) -> Backend:
    """Where the collections are."""
    from retriever_service.backends.choice import elasticsearch_catalog, milvus_catalog
    from retriever_service.catalog import Catalog
    from retriever_service.dense.choice import DenseIndexes, DenseOptions
    from retriever_service.metrics import retriever_metrics
    from retriever_service.replicas.building import build_collection

    if config.backend == "elasticsearch":
        return elasticsearch_catalog(config.elasticsearch)
    if config.backend == "milvus":
        return milvus_catalog(config.milvus)
    metrics = retriever_metrics()
    dense = DenseOptions(
        config.dense_backend,
        config.dense_device,
        config.dense_dtype,
        target_recall=config.target_recall,
        max_segment_bytes=config.max_segment_mib << 20,
        num_threads=config.num_dense_threads or len(os.sched_getaffinity(0)),
        on_progress=metrics.set_index_progress,
        on_search=metrics.observe_dense_search,
    )
    indexes = DenseIndexes(dense)
    return Catalog(config.data_dir, indexes, functools.partial(build_collection, config), indexes.check_new)


def build_service(
    config: RetrieverConfig, retriever: Retriever, replication: Publisher | Follower | None = None
) -> Service:
    """The gRPC service of a retriever."""
    from protos.rag.v1 import retriever_pb2_grpc
    from retriever_service.replica_servicer import ReaderServicer, WriterServicer
    from retriever_service.replicas.follower import Follower
    from retriever_service.replicas.publisher import Publisher
    from retriever_service.servicer import RetrieverServicer
    from serving.admission import Admission
    from serving.metrics import rpc_metrics

    make_servicer: Callable[..., RetrieverServicer] = RetrieverServicer
    if isinstance(replication, Follower):
        make_servicer = functools.partial(ReaderServicer, replication)
    elif isinstance(replication, Publisher):
        make_servicer = functools.partial(WriterServicer, replication)
    refused = rpc_metrics("retriever").count_refusal
    servicer = make_servicer(
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
    try:
        retriever = build_retriever(config)
        replication = _build_replication(config, retriever)

        async def warm_up() -> None:
            await retriever.start()
            if replication is not None:
                await replication.start()

        async def close() -> None:
            if replication is not None:
                await replication.close()
            await retriever.close()

        await serve(
            config,
            name="retriever",
            services=[build_service(config, retriever, replication)],
            warm_up=warm_up,
            close=close,
            canary=retriever.check,
        )
    except RagError as error:  # The data directory is taken, or the encoder is not to be had.
        raise SystemExit(f"retriever: {error.message}") from error


def _build_replication(config: RetrieverConfig, retriever: Retriever) -> Publisher | Follower | None:
    from retriever_service.metrics import retriever_metrics
    from retriever_service.replicas.building import build_replication

    return build_replication(config, retriever.library, retriever_metrics())


if __name__ == "__main__":
    run(main())
