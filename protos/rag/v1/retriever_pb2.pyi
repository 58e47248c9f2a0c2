import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from protos.rag.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TextRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEXT_ROLE_UNSPECIFIED: _ClassVar[TextRole]
    TEXT_ROLE_QUERY: _ClassVar[TextRole]
    TEXT_ROLE_PASSAGE: _ClassVar[TextRole]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_INNER_PRODUCT: _ClassVar[Metric]

class LexicalScoring(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEXICAL_SCORING_UNSPECIFIED: _ClassVar[LexicalScoring]
    LEXICAL_SCORING_BM25: _ClassVar[LexicalScoring]
    LEXICAL_SCORING_TF_IDF: _ClassVar[LexicalScoring]
TEXT_ROLE_UNSPECIFIED: TextRole
TEXT_ROLE_QUERY: TextRole
TEXT_ROLE_PASSAGE: TextRole
METRIC_UNSPECIFIED: Metric
METRIC_COSINE: Metric
METRIC_INNER_PRODUCT: Metric
LEXICAL_SCORING_UNSPECIFIED: LexicalScoring
LEXICAL_SCORING_BM25: LexicalScoring
LEXICAL_SCORING_TF_IDF: LexicalScoring

class Query(_message.Message):
    __slots__ = ("text", "vector")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    text: str
    vector: _common_pb2.Vector
    def __init__(self, text: _Optional[str] = ..., vector: _Optional[_Union[_common_pb2.Vector, _Mapping]] = ...) -> None: ...

class RetrieveRequest(_message.Message):
    __slots__ = ("queries", "options")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    options: _common_pb2.RetrievalOptions
    def __init__(self, queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ..., options: _Optional[_Union[_common_pb2.RetrievalOptions, _Mapping]] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("results", "provenance", "timings", "temperature", "metric")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[QueryResult]
    provenance: _common_pb2.Provenance
    timings: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    temperature: float
    metric: Metric
    def __init__(self, results: _Optional[_Iterable[_Union[QueryResult, _Mapping]]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ..., temperature: _Optional[float] = ..., metric: _Optional[_Union[Metric, str]] = ...) -> None: ...

class QueryResult(_message.Message):
    __slots__ = ("status", "passages")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    status: _common_pb2.Status
    passages: _containers.RepeatedCompositeFieldContainer[_common_pb2.RetrievedPassage]
    def __init__(self, status: _Optional[_Union[_common_pb2.Status, _Mapping]] = ..., passages: _Optional[_Iterable[_Union[_common_pb2.RetrievedPassage, _Mapping]]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("texts", "role", "collection", "dtype")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    role: TextRole
    collection: str
    dtype: _common_pb2.DataType
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., role: _Optional[_Union[TextRole, str]] = ..., collection: _Optional[str] = ..., dtype: _Optional[_Union[_common_pb2.DataType, str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("vectors", "encoder", "timings")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[_common_pb2.Vector]
    encoder: _common_pb2.ModelInfo
    timings: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    def __init__(self, vectors: _Optional[_Iterable[_Union[_common_pb2.Vector, _Mapping]]] = ..., encoder: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("name", "digest", "num_passages", "updated_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_PASSAGES_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    num_passages: int
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., num_passages: _Optional[int] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class UpsertRequest(_message.Message):
    __slots__ = ("collection", "passages", "sources", "replace_sources")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    REPLACE_SOURCES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    passages: _containers.RepeatedCompositeFieldContainer[PassageUpsert]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    replace_sources: bool
    def __init__(self, collection: _Optional[str] = ..., passages: _Optional[_Iterable[_Union[PassageUpsert, _Mapping]]] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., replace_sources: _Optional[bool] = ...) -> None: ...

class PassageUpsert(_message.Message):
    __slots__ = ("passage", "vector")
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    passage: _common_pb2.Passage
    vector: _common_pb2.Vector
    def __init__(self, passage: _Optional[_Union[_common_pb2.Passage, _Mapping]] = ..., vector: _Optional[_Union[_common_pb2.Vector, _Mapping]] = ...) -> None: ...

class UpsertResponse(_message.Message):
    __slots__ = ("statuses", "sequence", "num_inserted", "num_updated", "num_unchanged", "num_duplicates", "num_deleted", "statuses_omitted")
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NUM_INSERTED_FIELD_NUMBER: _ClassVar[int]
    NUM_UPDATED_FIELD_NUMBER: _ClassVar[int]
    NUM_UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    NUM_DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    NUM_DELETED_FIELD_NUMBER: _ClassVar[int]
    STATUSES_OMITTED_FIELD_NUMBER: _ClassVar[int]
    statuses: _containers.RepeatedCompositeFieldContainer[ItemStatus]
    sequence: int
    num_inserted: int
    num_updated: int
    num_unchanged: int
    num_duplicates: int
    num_deleted: int
    statuses_omitted: bool
    def __init__(self, statuses: _Optional[_Iterable[_Union[ItemStatus, _Mapping]]] = ..., sequence: _Optional[int] = ..., num_inserted: _Optional[int] = ..., num_updated: _Optional[int] = ..., num_unchanged: _Optional[int] = ..., num_duplicates: _Optional[int] = ..., num_deleted: _Optional[int] = ..., statuses_omitted: _Optional[bool] = ...) -> None: ...

class ItemStatus(_message.Message):
    __slots__ = ("id", "status", "duplicate_of")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_OF_FIELD_NUMBER: _ClassVar[int]
    id: str
    status: _common_pb2.Status
    duplicate_of: str
    def __init__(self, id: _Optional[str] = ..., status: _Optional[_Union[_common_pb2.Status, _Mapping]] = ..., duplicate_of: _Optional[str] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "sources", "filter")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: IdList
    sources: SourceList
    filter: _common_pb2.Filter
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[IdList, _Mapping]] = ..., sources: _Optional[_Union[SourceList, _Mapping]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ...) -> None: ...

class IdList(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class SourceList(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("num_deleted", "sequence")
    NUM_DELETED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    num_deleted: int
    sequence: int
    def __init__(self, num_deleted: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class PurgeRequest(_message.Message):
    __slots__ = ("collection", "ids", "sources")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: IdList
    sources: SourceList
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[IdList, _Mapping]] = ..., sources: _Optional[_Union[SourceList, _Mapping]] = ...) -> None: ...

class PurgeResponse(_message.Message):
    __slots__ = ("num_purged", "sequence", "rewritten_index_generations")
    NUM_PURGED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REWRITTEN_INDEX_GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    num_purged: int
    sequence: int
    rewritten_index_generations: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, num_purged: _Optional[int] = ..., sequence: _Optional[int] = ..., rewritten_index_generations: _Optional[_Iterable[int]] = ...) -> None: ...

class PatchMetadataRequest(_message.Message):
    __slots__ = ("collection", "ids", "sources", "filter", "set", "remove")
    class SetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: IdList
    sources: SourceList
    filter: _common_pb2.Filter
    set: _containers.MessageMap[str, _common_pb2.Value]
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[IdList, _Mapping]] = ..., sources: _Optional[_Union[SourceList, _Mapping]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., set: _Optional[_Mapping[str, _common_pb2.Value]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class PatchMetadataResponse(_message.Message):
    __slots__ = ("num_patched", "sequence")
    NUM_PATCHED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    num_patched: int
    sequence: int
    def __init__(self, num_patched: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class GetPassagesRequest(_message.Message):
    __slots__ = ("collection", "ids", "include_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    include_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., include_vectors: _Optional[bool] = ...) -> None: ...

class GetPassagesResponse(_message.Message):
    __slots__ = ("passages", "missing_ids", "vectors")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[_common_pb2.Passage]
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    vectors: _containers.RepeatedCompositeFieldContainer[_common_pb2.Vector]
    def __init__(self, passages: _Optional[_Iterable[_Union[_common_pb2.Passage, _Mapping]]] = ..., missing_ids: _Optional[_Iterable[str]] = ..., vectors: _Optional[_Iterable[_Union[_common_pb2.Vector, _Mapping]]] = ...) -> None: ...

class ListPassagesRequest(_message.Message):
    __slots__ = ("collection", "filter", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    filter: _common_pb2.Filter
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPassagesResponse(_message.Message):
    __slots__ = ("passages", "next_page_token", "num_total")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[_common_pb2.Passage]
    next_page_token: str
    num_total: int
    def __init__(self, passages: _Optional[_Iterable[_Union[_common_pb2.Passage, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., num_total: _Optional[int] = ...) -> None: ...

class ListSourcesRequest(_message.Message):
    __slots__ = ("collection", "prefix", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    prefix: str
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSourcesResponse(_message.Message):
    __slots__ = ("sources", "next_page_token", "num_total")
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    next_page_token: str
    num_total: int
    def __init__(self, sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., num_total: _Optional[int] = ...) -> None: ...

class FilterableField(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: _common_pb2.FieldType
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[_common_pb2.FieldType, str]] = ...) -> None: ...

class CollectionSettings(_message.Message):
    __slots__ = ("name", "metric", "encoder", "filterable_fields", "temperature", "fusion", "lexical_scoring", "language", "index_factory", "sentence_vectors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    FILTERABLE_FIELDS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_SCORING_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FACTORY_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    metric: Metric
    encoder: str
    filterable_fields: _containers.RepeatedCompositeFieldContainer[FilterableField]
    temperature: float
    fusion: _common_pb2.Fusion
    lexical_scoring: LexicalScoring
    language: str
    index_factory: str
    sentence_vectors: bool
    def __init__(self, name: _Optional[str] = ..., metric: _Optional[_Union[Metric, str]] = ..., encoder: _Optional[str] = ..., filterable_fields: _Optional[_Iterable[_Union[FilterableField, _Mapping]]] = ..., temperature: _Optional[float] = ..., fusion: _Optional[_Union[_common_pb2.Fusion, _Mapping]] = ..., lexical_scoring: _Optional[_Union[LexicalScoring, str]] = ..., language: _Optional[str] = ..., index_factory: _Optional[str] = ..., sentence_vectors: _Optional[bool] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("settings", "encoder", "num_passages", "num_sources", "sequence", "index_generation", "index_digest", "index_kind", "measured_recall", "created_at", "updated_at")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    NUM_PASSAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_SOURCES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    INDEX_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_KIND_FIELD_NUMBER: _ClassVar[int]
    MEASURED_RECALL_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    settings: CollectionSettings
    encoder: _common_pb2.ModelInfo
    num_passages: int
    num_sources: int
    sequence: int
    index_generation: int
    index_digest: str
    index_kind: str
    measured_recall: float
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, settings: _Optional[_Union[CollectionSettings, _Mapping]] = ..., encoder: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., num_passages: _Optional[int] = ..., num_sources: _Optional[int] = ..., sequence: _Optional[int] = ..., index_generation: _Optional[int] = ..., index_digest: _Optional[str] = ..., index_kind: _Optional[str] = ..., measured_recall: _Optional[float] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("settings",)
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: CollectionSettings
    def __init__(self, settings: _Optional[_Union[CollectionSettings, _Mapping]] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("collection", "created")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    created: bool
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ..., created: _Optional[bool] = ...) -> None: ...

class ConfigureCollectionRequest(_message.Message):
    __slots__ = ("collection", "temperature", "fusion")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    temperature: float
    fusion: _common_pb2.Fusion
    def __init__(self, collection: _Optional[str] = ..., temperature: _Optional[float] = ..., fusion: _Optional[_Union[_common_pb2.Fusion, _Mapping]] = ...) -> None: ...

class ConfigureCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class DescribeCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class DescribeCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class GetCollectionStateRequest(_message.Message):
    __slots__ = ("collection", "index_generation")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index_generation: int
    def __init__(self, collection: _Optional[str] = ..., index_generation: _Optional[int] = ...) -> None: ...

class GetCollectionStateResponse(_message.Message):
    __slots__ = ("collection_state",)
    COLLECTION_STATE_FIELD_NUMBER: _ClassVar[int]
    collection_state: str
    def __init__(self, collection_state: _Optional[str] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class DropCollectionResponse(_message.Message):
    __slots__ = ("num_dropped",)
    NUM_DROPPED_FIELD_NUMBER: _ClassVar[int]
    num_dropped: int
    def __init__(self, num_dropped: _Optional[int] = ...) -> None: ...

class ReencodeCollectionRequest(_message.Message):
    __slots__ = ("collection", "encoder", "activate")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    encoder: str
    activate: bool
    def __init__(self, collection: _Optional[str] = ..., encoder: _Optional[str] = ..., activate: _Optional[bool] = ...) -> None: ...

class ReencodeCollectionResponse(_message.Message):
    __slots__ = ("num_encoded", "num_total", "index_generation", "collection")
    NUM_ENCODED_FIELD_NUMBER: _ClassVar[int]
    NUM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    num_encoded: int
    num_total: int
    index_generation: int
    collection: Collection
    def __init__(self, num_encoded: _Optional[int] = ..., num_total: _Optional[int] = ..., index_generation: _Optional[int] = ..., collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("collection", "index_generation", "label", "sequence", "num_passages", "digest", "encoder_digest", "active", "created_at", "live")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NUM_PASSAGES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENCODER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index_generation: int
    label: str
    sequence: int
    num_passages: int
    digest: str
    encoder_digest: str
    active: bool
    created_at: _timestamp_pb2.Timestamp
    live: bool
    def __init__(self, collection: _Optional[str] = ..., index_generation: _Optional[int] = ..., label: _Optional[str] = ..., sequence: _Optional[int] = ..., num_passages: _Optional[int] = ..., digest: _Optional[str] = ..., encoder_digest: _Optional[str] = ..., active: _Optional[bool] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., live: _Optional[bool] = ...) -> None: ...

class CreateSnapshotRequest(_message.Message):
    __slots__ = ("collection", "label")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    collection: str
    label: str
    def __init__(self, collection: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class CreateSnapshotResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class ListSnapshotsRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class ListSnapshotsResponse(_message.Message):
    __slots__ = ("snapshots",)
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[Snapshot]
    def __init__(self, snapshots: _Optional[_Iterable[_Union[Snapshot, _Mapping]]] = ...) -> None: ...

class ActivateSnapshotRequest(_message.Message):
    __slots__ = ("collection", "index_generation")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index_generation: int
    def __init__(self, collection: _Optional[str] = ..., index_generation: _Optional[int] = ...) -> None: ...

class ActivateSnapshotResponse(_message.Message):
    __slots__ = ("snapshot", "previous_index_generation")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    previous_index_generation: int
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., previous_index_generation: _Optional[int] = ...) -> None: ...

class DropSnapshotRequest(_message.Message):
    __slots__ = ("collection", "index_generation")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index_generation: int
    def __init__(self, collection: _Optional[str] = ..., index_generation: _Optional[int] = ...) -> None: ...

class DropSnapshotResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DiffSnapshotsRequest(_message.Message):
    __slots__ = ("collection", "from_index_generation", "to_index_generation")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FROM_INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TO_INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    from_index_generation: int
    to_index_generation: int
    def __init__(self, collection: _Optional[str] = ..., from_index_generation: _Optional[int] = ..., to_index_generation: _Optional[int] = ...) -> None: ...

class DiffSnapshotsResponse(_message.Message):
    __slots__ = ("passage_id", "change")
    class Change(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHANGE_UNSPECIFIED: _ClassVar[DiffSnapshotsResponse.Change]
        CHANGE_ADDED: _ClassVar[DiffSnapshotsResponse.Change]
        CHANGE_REMOVED: _ClassVar[DiffSnapshotsResponse.Change]
        CHANGE_CHANGED: _ClassVar[DiffSnapshotsResponse.Change]
    CHANGE_UNSPECIFIED: DiffSnapshotsResponse.Change
    CHANGE_ADDED: DiffSnapshotsResponse.Change
    CHANGE_REMOVED: DiffSnapshotsResponse.Change
    CHANGE_CHANGED: DiffSnapshotsResponse.Change
    PASSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    passage_id: str
    change: DiffSnapshotsResponse.Change
    def __init__(self, passage_id: _Optional[str] = ..., change: _Optional[_Union[DiffSnapshotsResponse.Change, str]] = ...) -> None: ...

class ExportCollectionRequest(_message.Message):
    __slots__ = ("collection", "index_generation", "include_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index_generation: int
    include_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., index_generation: _Optional[int] = ..., include_vectors: _Optional[bool] = ...) -> None: ...

class ExportCollectionResponse(_message.Message):
    __slots__ = ("passages", "sources", "num_total", "snapshot")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    NUM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[PassageUpsert]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    num_total: int
    snapshot: Snapshot
    def __init__(self, passages: _Optional[_Iterable[_Union[PassageUpsert, _Mapping]]] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., num_total: _Optional[int] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class RetrieverServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RetrieverServiceGetInfoResponse(_message.Message):
    __slots__ = ("service", "encoder", "collections", "role", "writer_address", "replication_lag_seconds")
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ROLE_UNSPECIFIED: _ClassVar[RetrieverServiceGetInfoResponse.Role]
        ROLE_WRITER: _ClassVar[RetrieverServiceGetInfoResponse.Role]
        ROLE_READER: _ClassVar[RetrieverServiceGetInfoResponse.Role]
    ROLE_UNSPECIFIED: RetrieverServiceGetInfoResponse.Role
    ROLE_WRITER: RetrieverServiceGetInfoResponse.Role
    ROLE_READER: RetrieverServiceGetInfoResponse.Role
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    WRITER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_LAG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    service: _common_pb2.ServiceInfo
    encoder: _common_pb2.ModelInfo
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    role: RetrieverServiceGetInfoResponse.Role
    writer_address: str
    replication_lag_seconds: float
    def __init__(self, service: _Optional[_Union[_common_pb2.ServiceInfo, _Mapping]] = ..., encoder: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ..., role: _Optional[_Union[RetrieverServiceGetInfoResponse.Role, str]] = ..., writer_address: _Optional[str] = ..., replication_lag_seconds: _Optional[float] = ...) -> None: ...
