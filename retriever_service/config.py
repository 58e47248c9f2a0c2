"""What the retriever can be told. Flags, RAG_RETRIEVER_ environment, YAML; see `serving.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from retriever_service.backends.config import ElasticsearchConfig, MilvusConfig
from retriever_service.checkpoint import DEFAULT_ENCODER, MINILM
from serving.config import ConfigSection, Port, PositiveInt, Seconds, ServiceConfig, settings_config
from serving.packed_checkpoint import DEFAULT_CACHE


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
    """Default (query) encoder: "default" for the one that comes with the package, or the name or directory of a Hugging
    Face checkpoint, sentence-transformers, DPR or RAG."""

    passage_encoder: str = ""
    """Passage encoder where it is another checkpoint than `encoder`, as DPR's context encoder. Without one, an encoder
    of DPR or RAG takes only passages that come with their vectors."""

    encoder_tokenizer: str = ""
    """Tokenizer of `encoder`, name or directory, where it does not lie with it."""

    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the encoders' weights. bfloat16 is faster on a CPU that has it; its vectors are the float32
    ones to a cosine of 1 - 1e-4, so collections keep working when this is changed."""

    encoders: tuple[str, ...] = (MINILM,)
    """Encoders besides the default one that collections may name, or were made with; loaded when first used."""

    cache_dir: Path = DEFAULT_CACHE
    """Where the default encoder is unpacked to on first use."""

    reranker: str = ""
    """Cross-encoder for `rerank` by CROSS_ENCODER: name or directory of a Hugging Face sequence classifier with one
    logit or two classes. Without one, such requests are refused."""

    device: str = "cpu"
    """Torch device of the encoders and the reranker."""

    num_encoder_threads: Annotated[int, Field(ge=0)] = 0
    """Cores that one encoding uses; 0 is all that this process may run on."""

    num_search_threads: PositiveInt = 2
    """Threads that read passages and search by words and filters."""

    dense_backend: Literal["faiss", "torch"] = "faiss"
    """What searches vectors. `torch` searches exactly, in the memory of `dense_device`: with a GPU also where FAISS is
    built without one."""

    dense_device: Annotated[str, Field(pattern=r"cpu|cuda(:\d+)?")] = "cpu"
    """Where vectors are searched: cpu, cuda or cuda:N. FAISS needs the `gpu` extra for a GPU."""

    dense_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format of the torch backend's vectors; auto is float16 on a GPU, float32 on a CPU. Passages that are
    returned are scored from the stored float32 vectors in any case."""

    num_dense_threads: Annotated[int, Field(ge=0)] = 0
    """Cores that one batch of vector searches uses; 0 is all that this process may run on."""

    target_recall: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Recall@10 for which quantised indexes are calibrated when they are built; DescribeCollection tells what was
    measured."""

    max_segment_mib: PositiveInt = 1_024
    """Size of an index segment's vectors at two bytes a number; bounds the memory that a merge takes."""

    max_upsert_streams: PositiveInt = 16
    """Upsert streams at once; more are refused with RESOURCE_EXHAUSTED."""

    refresh_wait_seconds: Seconds = 1.0
    """How long an upsert's answer waits for the indexes to hold what it wrote; it is durable either way."""

    publish_to: str = ""
    """Makes this retriever the writer of read replicas: where they find what it publishes, file:///a/shared/directory
    or s3://bucket/prefix (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION). One writer each."""

    writer_address: str = ""
    """With `publish_to`: the address that replicas name to those who want to write."""

    take_over: bool = False
    """With `publish_to`: publish there although another retriever did so before, which then takes no writes any more;
    also promotes a replica's `data_dir` to a writer's. Set it for one start only."""

    publish_every_seconds: Seconds = 0.0
    """With `publish_to`: how often what was written meanwhile is published; 0 is only when a snapshot is created,
    activated or dropped, content is purged, or a collection is created, configured or dropped."""

    publish_keep: PositiveInt = 2
    """With `publish_to`: published states whose files are kept, for replicas that are still fetching an older one.
    After a purge, it is one."""

    follow: str = ""
    """Makes this retriever a read replica of the writer that publishes there; `data_dir` is its local copy."""

    follow_interval_seconds: Annotated[float, Field(gt=0)] = 2.0
    """With `follow`: time between two looks at what is published."""

    replica_wait_seconds: Seconds = 5.0
    """With `follow`: how long a request whose min_sequence has not come here yet waits for it."""

    backend: Literal["local", "elasticsearch", "milvus"] = "local"
    """Where collections are kept: files in `data_dir`, or an engine, which several retrievers may use."""

    elasticsearch: ElasticsearchConfig = ElasticsearchConfig()
    """With `backend` elasticsearch."""

    milvus: MilvusConfig = MilvusConfig()
    """With `backend` milvus."""

    batching: BatchingConfig = BatchingConfig()

    @model_validator(mode="after")
    def _check_replication(self) -> RetrieverConfig:
        if self.publish_to and self.follow:
            raise ValueError("publish_to and follow exclude each other: a retriever is a writer or a replica")
        if (self.publish_to or self.follow) and self.backend != "local":
            raise ValueError("publish_to and follow are for the local backend: with an engine, every retriever writes")
        if self.publish_to and not self.writer_address:
            raise ValueError("publish_to needs writer_address, which replicas name to those who want to write")
        return self
