"""Between the wire and the domain: collections, encoders, limits, timings, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from retriever_service.batch import Outcome
from retriever_service.collection import CollectionRequest, CollectionSettings, FieldType, LexicalScoring, Metric
from retriever_service.convert import choice, fusion_from, timestamp_to
from retriever_service.encoder import EncoderInfo
from retriever_service.fusion import Fusion, FusionMethod
from retriever_service.library import CollectionInfo
from retriever_service.limits import LIMITS
from retriever_service.retriever import Origin
from retriever_service.upserting import ItemResult, UpsertResult
from serving.errors import InvalidRequest
from serving.status import item_status

_METRICS = {
    wire.METRIC_UNSPECIFIED: None,
    wire.METRIC_COSINE: Metric.COSINE,
    wire.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT,
}
_METRICS_TO = {domain: number for number, domain in _METRICS.items()}
_FIELD_TYPES = {
    common.FIELD_TYPE_STRING: FieldType.STRING,
    common.FIELD_TYPE_INT: FieldType.INT,
    common.FIELD_TYPE_DOUBLE: FieldType.DOUBLE,
    common.FIELD_TYPE_BOOL: FieldType.BOOL,
}
_FIELD_TYPES_TO = {domain: number for number, domain in _FIELD_TYPES.items()}
_FUSION_METHODS_TO = {
    FusionMethod.LINEAR: common.FUSION_METHOD_LINEAR,
    FusionMethod.RRF: common.FUSION_METHOD_RRF,
}
_LEXICAL_SCORINGS = {
    wire.LEXICAL_SCORING_UNSPECIFIED: LexicalScoring.BM25,
    wire.LEXICAL_SCORING_BM25: LexicalScoring.BM25,
    wire.LEXICAL_SCORING_TF_IDF: LexicalScoring.TF_IDF,
}
_LEXICAL_SCORINGS_TO = {domain: number for number, domain in _LEXICAL_SCORINGS.items()}
_STAGES = {
    "queue": common.STAGE_QUEUE,
    "encode": common.STAGE_ENCODE,
    "search": common.STAGE_SEARCH,
    "fetch": common.STAGE_FETCH,
    "rerank": common.STAGE_RERANK,
    "total": common.STAGE_TOTAL,
}
_ALREADY_EXISTS = 6  # google.rpc.Code


def request_from(message: wire.CollectionSettings) -> CollectionRequest:
    """A collection as asked for.

    Raises:
        InvalidRequest: When a setting is wrong.
    """
    fields: dict[str, FieldType] = {}
    for field in message.filterable_fields:
        if field.name in fields:
            raise InvalidRequest(
                f"filterable field {field.name!r} is declared twice", field="settings.filterable_fields"
            )
        fields[field.name] = choice(_FIELD_TYPES, field.type, "settings.filterable_fields.type")
    return CollectionRequest(
        name=message.name,
        metric=choice(_METRICS, message.metric, "settings.metric"),
        encoder=message.encoder,
        filterable_fields=fields,
        temperature=message.temperature if message.HasField("temperature") else None,
        fusion=fusion_from(message.fusion),
        index_factory=message.index_factory,
        lexical_scoring=choice(_LEXICAL_SCORINGS, message.lexical_scoring, "settings.lexical_scoring"),
        language=message.language,
        sentence_vectors=message.sentence_vectors if message.HasField("sentence_vectors") else None,
    )


def collection_to(info: CollectionInfo) -> wire.Collection:
    """A collection on the wire."""
    return wire.Collection(
        settings=_settings_to(info.settings),
        encoder=encoder_to(info.encoder),
        num_passages=info.num_passages,
        num_sources=info.num_sources,
        sequence=info.sequence,
        index_generation=info.index_generation,
        index_digest=info.index_digest,
        index_kind=info.index_kind,
        measured_recall=None if math.isnan(info.measured_recall) else info.measured_recall,
        created_at=timestamp_to(info.created_at),
        updated_at=timestamp_to(info.updated_at or info.created_at),
    )


def encoder_to(info: EncoderInfo) -> common.ModelInfo:
    """An encoder on the wire."""
    return common.ModelInfo(
        name=info.identity.name,
        digest=info.identity.digest,
        architecture=info.architecture,
        dtype="float32",
        device=info.device,
        num_parameters=info.num_parameters,
        dim=info.identity.dim,
        max_input_tokens=info.max_input_tokens,
    )


def upsert_to(result: UpsertResult) -> wire.UpsertResponse:
    """The outcome of a stream on the wire; a long one lists only what is not OK."""
    is_abridged = len(result.items) > LIMITS.max_statuses
    statuses = (_status_to(item) for item in result.items)
    return wire.UpsertResponse(
        statuses=[status for status in statuses if not is_abridged or status.status.code],
        sequence=result.sequence,
        num_inserted=result.num(Outcome.INSERTED),
        num_updated=result.num(Outcome.UPDATED),
        num_unchanged=result.num(Outcome.UNCHANGED),
        num_duplicates=result.num(Outcome.DUPLICATE),
        num_deleted=result.num_deleted,
        statuses_omitted=is_abridged,
    )


def provenance_to(origin: Origin, build_version: str) -> common.Provenance:
    """Which artefacts made an answer, on the wire."""
    return common.Provenance(
        collection=origin.collection,
        index_generation=origin.index_generation,
        sequence=origin.applied.sequence,
        index_digest=origin.applied.index_digest,
        encoder=origin.encoder.identity.name,
        encoder_digest=origin.encoder.identity.digest,
        build_version=build_version,
        collection_state=origin.state,
    )


def metric_to(metric: Metric) -> wire.Metric:
    """A metric on the wire."""
    return _METRICS_TO[metric]


def timings_to(seconds: Mapping[str, float]) -> list[common.StageTiming]:
    """Seconds by stage on the wire."""
    return [common.StageTiming(stage=_STAGES[name], duration_seconds=duration) for name, duration in seconds.items()]


def _settings_to(settings: CollectionSettings) -> wire.CollectionSettings:
    return wire.CollectionSettings(
        name=settings.name,
        metric=_METRICS_TO[settings.metric],
        encoder=settings.encoder.name,
        filterable_fields=[
            wire.FilterableField(name=name, type=_FIELD_TYPES_TO[kind])
            for name, kind in sorted(settings.filterable_fields.items())
        ],
        temperature=settings.temperature,
        fusion=_fusion_to(settings.fusion),
        lexical_scoring=_LEXICAL_SCORINGS_TO[settings.lexical_scoring],
        index_factory=settings.index_factory,
        language=settings.language,
        sentence_vectors=settings.sentence_vectors,
    )


def _fusion_to(fusion: Fusion) -> common.Fusion:
    return common.Fusion(
        method=_FUSION_METHODS_TO[fusion.method],
        dense_weight=fusion.dense_weight,
        lexical_weight=fusion.lexical_weight,
        rrf_k=fusion.rrf_k,
    )


def _status_to(item: ItemResult) -> wire.ItemStatus:
    if item.error is not None:
        code, message, reason = item_status(item.error)
        return wire.ItemStatus(id=item.id, status=common.Status(code=code, message=message, reason=reason))
    if item.outcome is not None and item.outcome.outcome is Outcome.DUPLICATE:
        kept = item.outcome.duplicate_of
        status = common.Status(
            code=_ALREADY_EXISTS, message=f"same title and text as passage {kept!r}, kept once", reason="DUPLICATE"
        )
        return wire.ItemStatus(id=item.id, status=status, duplicate_of=kept)
    return wire.ItemStatus(id=item.id, status=common.Status())
