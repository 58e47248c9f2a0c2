"""What the retriever can be told. Flags, RAG_RETRIEVER_ environment, YAML; see `serving.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from retriever_service.checkpoint import DEFAULT_ENCODER
from serving.config import ConfigSection, Port, PositiveInt, Seconds, ServiceConfig, settings_config


class BatchingConfig(ConfigSection):
    """What goes through the encoder together."""

    max_batch_items: PositiveInt = 64
    """Texts per batch."""

    max_batch_tokens: PositiveInt = 1_024
    """Estimated tokens per batch. A query waits for the batch at work, so large batches of passages make it wait."""


class RetrieverConfig(ServiceConfig):
    """The retriever: finds passages for queries."""

    model_config = settings_config("RAG_RETRIEVER_")

    port: Port = 50051
    """gRPC port; 0 takes a free one."""

    metrics_port: Port = 9101
    """Prometheus port; 0 takes a free one."""

    data_dir: Path = Path("rag-data/retriever")
    """Where collections are kept; one process at a time owns it."""

    encoder: str = DEFAULT_ENCODER
    """Default (query) encoder: name or directory of a Hugging Face checkpoint, sentence-transformers or DPR."""

    passage_encoder: str = ""
    """Passage encoder where it is another checkpoint than `encoder`, as DPR's context encoder."""

    encoders: tuple[str, ...] = ()
    """Encoders besides the default one that collections may name; loaded when first used."""

    device: str = "cpu"
    """Torch device of the encoders."""

    num_encoder_threads: Annotated[int, Field(ge=0)] = 0
    """Cores that one encoding uses; 0 is all that this process may run on."""

    num_search_threads: PositiveInt = 2
    """Searches at once."""

    max_upsert_streams: PositiveInt = 16
    """Upsert streams at once; more are refused with RESOURCE_EXHAUSTED."""

    refresh_wait_seconds: Seconds = 1.0
    """How long an upsert's answer waits for the indexes to hold what it wrote; it is durable either way."""

    batching: BatchingConfig = BatchingConfig()
