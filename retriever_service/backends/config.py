"""What the retriever can be told about the engines that hold collections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from serving.config import ConfigSection, PositiveInt

Prefix = Annotated[str, Field(pattern=r"[a-z][a-z0-9]*")]
CallSeconds = Annotated[float, Field(gt=0)]


class ElasticsearchConfig(ConfigSection):
    """An Elasticsearch server."""

    url: str = "http://127.0.0.1:9200"
    """Its address, with scheme and port."""

    api_key: SecretStr = SecretStr("")
    """Encoded API key; give it by the environment, RAG_RETRIEVER_ELASTICSEARCH__API_KEY."""

    user: str = ""
    """For basic authentication, where there is no API key."""

    password: SecretStr = SecretStr("")
    """The user's; give it by the environment, RAG_RETRIEVER_ELASTICSEARCH__PASSWORD."""

    ca_file: str = ""
    """Certificates to trust for https; the system's where it is empty."""

    index_type: Literal["hnsw", "flat", "int8_hnsw", "int8_flat", "int4_hnsw", "int4_flat", "bbq_hnsw", "bbq_flat"] = (
        "hnsw"
    )
    """Of new collections' vectors. hnsw and flat keep float32 (flat is exact); the others are smaller, and their
    candidates are scored again."""

    prefix: Prefix = "rag"
    """What the names of the collections' indexes begin with."""

    num_shards: PositiveInt = 1
    """Primary shards of new collections."""

    num_replicas: Annotated[int, Field(ge=0)] = 1
    """Copies of each shard of new collections."""

    timeout_seconds: CallSeconds = 10.0
    """Of one call."""


class MilvusConfig(ConfigSection):
    """A Milvus server."""

    url: str = "http://127.0.0.1:19530"
    """Its address; https for TLS. A file name is milvus-lite, for development."""

    token: SecretStr = SecretStr("")
    """user:password or an API key; give it by the environment, RAG_RETRIEVER_MILVUS__TOKEN."""

    ca_file: str = ""
    """Certificate to trust for https."""

    index_type: Literal["HNSW", "FLAT", "IVF_FLAT", "DISKANN", "AUTOINDEX"] = "HNSW"
    """Of new collections' vectors; FLAT is exact."""

    prefix: Prefix = "rag"
    """What the names of the collections in Milvus begin with."""

    timeout_seconds: CallSeconds = 30.0
    """Of one call."""
