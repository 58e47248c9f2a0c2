"""Wire messages → the client's values, for collections, writes and the services themselves."""

from collections.abc import Mapping

import numpy as np

from protos.rag.v1 import common_pb2, gateway_pb2, generator_pb2, retriever_pb2
from rag_client import collection_types, types
from rag_client.convert import choice, decoding_model, moment, optional, timings, vector
from rag_client.enums import FieldType, FusionMethod, LexicalScoring, Metric
from rag_client.errors import error_from_item


def embeddings(message: retriever_pb2.EmbedResponse) -> collection_types.Embeddings:
    """Vectors of texts."""
    vectors = [vector(each) for each in message.vectors]
    return collection_types.Embeddings(
        vectors=np.stack(vectors) if vectors else np.empty((0, 0), np.float32),
        encoder=model_info(message.encoder),
        timings=timings(message.timings),
    )


def source(message: retriever_pb2.Source) -> collection_types.Source:
    """A source."""
    updated_at = moment(message.updated_at) if message.HasField("updated_at") else None
    return collection_types.Source(message.name, message.digest, message.num_passages, updated_at)


def upsert_result(message: retriever_pb2.UpsertResponse) -> collection_types.UpsertResult:
    """The outcome of an upsert; a duplicate is not an error."""
    return collection_types.UpsertResult(
        statuses=tuple(
            collection_types.ItemStatus(
                id=item.id,
                error=None
                if item.duplicate_of
                else error_from_item(item.status.code, item.status.message, item.status.reason),
                duplicate_of=item.duplicate_of,
            )
            for item in message.statuses
        ),
        sequence=message.sequence,
        num_inserted=message.num_inserted,
        num_updated=message.num_updated,
        num_unchanged=message.num_unchanged,
        num_duplicates=message.num_duplicates,
        num_deleted=message.num_deleted,
        is_abridged=message.statuses_omitted,
    )


def model_info(message: common_pb2.ModelInfo) -> collection_types.ModelInfo:
    """A loaded model."""
    return collection_types.ModelInfo(
        **{field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    )


def collection(message: retriever_pb2.Collection) -> collection_types.Collection:
    """A collection as it is now."""
    return collection_types.Collection(
        settings=_settings(message.settings),
        encoder=model_info(message.encoder),
        num_passages=message.num_passages,
        num_sources=message.num_sources,
        sequence=message.sequence,
        index_generation=message.index_generation,
        index_digest=message.index_digest,
        index_kind=message.index_kind,
        measured_recall=optional(message, "measured_recall"),
        created_at=moment(message.created_at) if message.HasField("created_at") else None,
        updated_at=moment(message.updated_at) if message.HasField("updated_at") else None,
    )


def _settings(message: retriever_pb2.CollectionSettings) -> collection_types.CollectionSettings:
    fields: Mapping[str, FieldType | str] = {
        each.name: choice(FieldType, common_pb2.FieldType, "FIELD_TYPE_", each.type) or ""
        for each in message.filterable_fields
    }
    return collection_types.CollectionSettings(
        name=message.name,
        metric=choice(Metric, retriever_pb2.Metric, "METRIC_", message.metric),
        encoder=message.encoder,
        filterable_fields=fields,
        temperature=optional(message, "temperature"),
        fusion=_fusion(message.fusion),
        lexical_scoring=choice(
            LexicalScoring, retriever_pb2.LexicalScoring, "LEXICAL_SCORING_", message.lexical_scoring
        ),
        language=message.language,
        index_factory=message.index_factory,
        sentence_vectors=message.sentence_vectors if message.HasField("sentence_vectors") else None,
    )


def _fusion(message: common_pb2.Fusion) -> types.Fusion:
    return types.Fusion(
        method=choice(FusionMethod, common_pb2.FusionMethod, "FUSION_METHOD_", message.method),
        dense_weight=optional(message, "dense_weight"),
        lexical_weight=optional(message, "lexical_weight"),
        rrf_k=optional(message, "rrf_k"),
    )


def service_info(message: common_pb2.ServiceInfo) -> collection_types.ServiceInfo:
    """What a service says of itself."""
    return collection_types.ServiceInfo(
        service=message.service,
        build_version=message.build_version,
        started_at=moment(message.started_at) if message.HasField("started_at") else None,
        limits=tuple(collection_types.Limit(each.name, each.value, each.unit) for each in message.limits),
    )


def retriever_info(message: retriever_pb2.RetrieverServiceGetInfoResponse) -> collection_types.RetrieverInfo:
    """What the retriever says of itself."""
    roles = retriever_pb2.RetrieverServiceGetInfoResponse.Role
    return collection_types.RetrieverInfo(
        service=service_info(message.service),
        encoder=model_info(message.encoder),
        collections=tuple(map(collection, message.collections)),
        role=roles.Name(message.role).removeprefix("ROLE_").lower() if message.role else "",
        writer_address=message.writer_address,
        replication_lag_seconds=message.replication_lag_seconds,
    )


def generator_info(message: generator_pb2.GeneratorServiceGetInfoResponse) -> collection_types.GeneratorInfo:
    """What the generator says of itself."""
    models = map(decoding_model, message.models)
    return collection_types.GeneratorInfo(
        service=service_info(message.service),
        generator=model_info(message.generator),
        prompt_format=message.prompt_format,
        models=tuple(model for model in models if model is not None),
        tasks=tuple(
            collection_types.TaskPrompt(each.task, each.template, tuple(each.labels)) for each in message.tasks
        ),
    )


def gateway_info(message: gateway_pb2.GatewayServiceGetInfoResponse) -> collection_types.GatewayInfo:
    """What the gateway says of itself and of what stands behind it."""
    return collection_types.GatewayInfo(
        service=service_info(message.service),
        retriever=retriever_info(message.retriever) if message.HasField("retriever") else None,
        generator=generator_info(message.generator) if message.HasField("generator") else None,
    )
