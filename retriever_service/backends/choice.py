"""The backend of a configuration. Its client is imported here and nowhere before."""

from __future__ import annotations

from retriever_service.backends.catalog import RemoteCatalog
from retriever_service.backends.config import ElasticsearchConfig, MilvusConfig
from serving.errors import FailedPrecondition


def elasticsearch_catalog(config: ElasticsearchConfig) -> RemoteCatalog:
    """Collections in Elasticsearch.

    Raises:
        FailedPrecondition: When its client is not installed.
    """
    try:
        from retriever_service.backends.elasticsearch.server import ElasticsearchOptions, ElasticsearchServer
    except ModuleNotFoundError as error:
        raise _missing("elasticsearch", error) from error
    return RemoteCatalog(
        ElasticsearchServer(
            ElasticsearchOptions(
                config.url,
                api_key=config.api_key.get_secret_value(),
                user=config.user,
                password=config.password.get_secret_value(),
                ca_file=config.ca_file,
                index_type=config.index_type,
                prefix=config.prefix,
                num_shards=config.num_shards,
                num_replicas=config.num_replicas,
                timeout_seconds=config.timeout_seconds,
            )
        )
    )


def milvus_catalog(config: MilvusConfig) -> RemoteCatalog:
    """Collections in Milvus.

    Raises:
        FailedPrecondition: When its client is not installed.
    """
    try:
        from retriever_service.backends.milvus.server import MilvusOptions, MilvusServer
    except ModuleNotFoundError as error:
        raise _missing("milvus", error) from error
    return RemoteCatalog(
        MilvusServer(
            MilvusOptions(
                config.url,
                token=config.token.get_secret_value(),
                ca_file=config.ca_file,
                index_type=config.index_type,
                prefix=config.prefix,
                timeout_seconds=config.timeout_seconds,
            )
        )
    )


def _missing(backend: str, error: ModuleNotFoundError) -> FailedPrecondition:
    return FailedPrecondition(
        f"the {backend} backend needs a package that is not installed ({error.name}): pip install "
        f"'rag-serving[{backend}]'",
        reason="CLIENT_MISSING",
    )
