import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_BFLOAT16: _ClassVar[DataType]

class FieldType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIELD_TYPE_UNSPECIFIED: _ClassVar[FieldType]
    FIELD_TYPE_STRING: _ClassVar[FieldType]
    FIELD_TYPE_INT: _ClassVar[FieldType]
    FIELD_TYPE_DOUBLE: _ClassVar[FieldType]
    FIELD_TYPE_BOOL: _ClassVar[FieldType]

class RetrievalMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETRIEVAL_MODE_UNSPECIFIED: _ClassVar[RetrievalMode]
    RETRIEVAL_MODE_DENSE: _ClassVar[RetrievalMode]
    RETRIEVAL_MODE_LEXICAL: _ClassVar[RetrievalMode]
    RETRIEVAL_MODE_HYBRID: _ClassVar[RetrievalMode]

class FusionMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FUSION_METHOD_UNSPECIFIED: _ClassVar[FusionMethod]
    FUSION_METHOD_LINEAR: _ClassVar[FusionMethod]
    FUSION_METHOD_RRF: _ClassVar[FusionMethod]

class DecodingModel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECODING_MODEL_UNSPECIFIED: _ClassVar[DecodingModel]
    DECODING_MODEL_RAG_SEQUENCE: _ClassVar[DecodingModel]
    DECODING_MODEL_RAG_TOKEN: _ClassVar[DecodingModel]
    DECODING_MODEL_FUSION_IN_DECODER: _ClassVar[DecodingModel]
    DECODING_MODEL_CLOSED_BOOK: _ClassVar[DecodingModel]

class SequenceScoring(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEQUENCE_SCORING_UNSPECIFIED: _ClassVar[SequenceScoring]
    SEQUENCE_SCORING_THOROUGH: _ClassVar[SequenceScoring]
    SEQUENCE_SCORING_FAST: _ClassVar[SequenceScoring]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END_OF_SEQUENCE: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_NO_PASSAGES: _ClassVar[FinishReason]
    FINISH_REASON_ABSTAINED: _ClassVar[FinishReason]

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_QUEUE: _ClassVar[Stage]
    STAGE_TOKENIZE: _ClassVar[Stage]
    STAGE_ENCODE: _ClassVar[Stage]
    STAGE_SEARCH: _ClassVar[Stage]
    STAGE_FETCH: _ClassVar[Stage]
    STAGE_RERANK: _ClassVar[Stage]
    STAGE_PREFILL: _ClassVar[Stage]
    STAGE_DECODE: _ClassVar[Stage]
    STAGE_RETRIEVE: _ClassVar[Stage]
    STAGE_GENERATE: _ClassVar[Stage]
    STAGE_TOTAL: _ClassVar[Stage]
    STAGE_RANK: _ClassVar[Stage]
    STAGE_REWRITE: _ClassVar[Stage]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_BFLOAT16: DataType
FIELD_TYPE_UNSPECIFIED: FieldType
FIELD_TYPE_STRING: FieldType
FIELD_TYPE_INT: FieldType
FIELD_TYPE_DOUBLE: FieldType
FIELD_TYPE_BOOL: FieldType
RETRIEVAL_MODE_UNSPECIFIED: RetrievalMode
RETRIEVAL_MODE_DENSE: RetrievalMode
RETRIEVAL_MODE_LEXICAL: RetrievalMode
RETRIEVAL_MODE_HYBRID: RetrievalMode
FUSION_METHOD_UNSPECIFIED: FusionMethod
FUSION_METHOD_LINEAR: FusionMethod
FUSION_METHOD_RRF: FusionMethod
DECODING_MODEL_UNSPECIFIED: DecodingModel
DECODING_MODEL_RAG_SEQUENCE: DecodingModel
DECODING_MODEL_RAG_TOKEN: DecodingModel
DECODING_MODEL_FUSION_IN_DECODER: DecodingModel
DECODING_MODEL_CLOSED_BOOK: DecodingModel
SEQUENCE_SCORING_UNSPECIFIED: SequenceScoring
SEQUENCE_SCORING_THOROUGH: SequenceScoring
SEQUENCE_SCORING_FAST: SequenceScoring
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END_OF_SEQUENCE: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_NO_PASSAGES: FinishReason
FINISH_REASON_ABSTAINED: FinishReason
STAGE_UNSPECIFIED: Stage
STAGE_QUEUE: Stage
STAGE_TOKENIZE: Stage
STAGE_ENCODE: Stage
STAGE_SEARCH: Stage
STAGE_FETCH: Stage
STAGE_RERANK: Stage
STAGE_PREFILL: Stage
STAGE_DECODE: Stage
STAGE_RETRIEVE: Stage
STAGE_GENERATE: Stage
STAGE_TOTAL: Stage
STAGE_RANK: Stage
STAGE_REWRITE: Stage

class Status(_message.Message):
    __slots__ = ("code", "message", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("data", "dtype", "dim")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    dtype: DataType
    dim: int
    def __init__(self, data: _Optional[bytes] = ..., dtype: _Optional[_Union[DataType, str]] = ..., dim: _Optional[int] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("string_value", "int_value", "double_value", "bool_value", "string_list")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_LIST_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    int_value: int
    double_value: float
    bool_value: bool
    string_list: StringList
    def __init__(self, string_value: _Optional[str] = ..., int_value: _Optional[int] = ..., double_value: _Optional[float] = ..., bool_value: _Optional[bool] = ..., string_list: _Optional[_Union[StringList, _Mapping]] = ...) -> None: ...

class StringList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Passage(_message.Message):
    __slots__ = ("id", "title", "text", "source", "span", "metadata", "content_digest", "sequence")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    text: str
    source: str
    span: TextSpan
    metadata: _containers.MessageMap[str, Value]
    content_digest: str
    sequence: int
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., source: _Optional[str] = ..., span: _Optional[_Union[TextSpan, _Mapping]] = ..., metadata: _Optional[_Mapping[str, Value]] = ..., content_digest: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class TextSpan(_message.Message):
    __slots__ = ("start_char", "end_char", "page")
    START_CHAR_FIELD_NUMBER: _ClassVar[int]
    END_CHAR_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    start_char: int
    end_char: int
    page: int
    def __init__(self, start_char: _Optional[int] = ..., end_char: _Optional[int] = ..., page: _Optional[int] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("equals", "range", "all_of", "any_of")
    EQUALS_FIELD_NUMBER: _ClassVar[int]
    IN_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NOT_FIELD_NUMBER: _ClassVar[int]
    equals: FieldEquals
    range: FieldRange
    all_of: FilterList
    any_of: FilterList
    def __init__(self, equals: _Optional[_Union[FieldEquals, _Mapping]] = ..., range: _Optional[_Union[FieldRange, _Mapping]] = ..., all_of: _Optional[_Union[FilterList, _Mapping]] = ..., any_of: _Optional[_Union[FilterList, _Mapping]] = ..., **kwargs) -> None: ...

class FilterList(_message.Message):
    __slots__ = ("filters",)
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class FieldEquals(_message.Message):
    __slots__ = ("field", "value")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    field: str
    value: Value
    def __init__(self, field: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class FieldIn(_message.Message):
    __slots__ = ("field", "values")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    field: str
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, field: _Optional[str] = ..., values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class FieldRange(_message.Message):
    __slots__ = ("field", "greater_than", "greater_or_equal", "less_than", "less_or_equal")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    GREATER_THAN_FIELD_NUMBER: _ClassVar[int]
    GREATER_OR_EQUAL_FIELD_NUMBER: _ClassVar[int]
    LESS_THAN_FIELD_NUMBER: _ClassVar[int]
    LESS_OR_EQUAL_FIELD_NUMBER: _ClassVar[int]
    field: str
    greater_than: Value
    greater_or_equal: Value
    less_than: Value
    less_or_equal: Value
    def __init__(self, field: _Optional[str] = ..., greater_than: _Optional[_Union[Value, _Mapping]] = ..., greater_or_equal: _Optional[_Union[Value, _Mapping]] = ..., less_than: _Optional[_Union[Value, _Mapping]] = ..., less_or_equal: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Fusion(_message.Message):
    __slots__ = ("method", "dense_weight", "lexical_weight", "rrf_k")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DENSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RRF_K_FIELD_NUMBER: _ClassVar[int]
    method: FusionMethod
    dense_weight: float
    lexical_weight: float
    rrf_k: float
    def __init__(self, method: _Optional[_Union[FusionMethod, str]] = ..., dense_weight: _Optional[float] = ..., lexical_weight: _Optional[float] = ..., rrf_k: _Optional[float] = ...) -> None: ...

class RetrievalOptions(_message.Message):
    __slots__ = ("collection", "mode", "top_k", "filter", "fusion", "temperature", "min_sequence", "index_generation", "num_candidates", "min_score", "num_neighbors", "rerank", "diversity", "include_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    NUM_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    NUM_NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    mode: RetrievalMode
    top_k: int
    filter: Filter
    fusion: Fusion
    temperature: float
    min_sequence: int
    index_generation: int
    num_candidates: int
    min_score: float
    num_neighbors: int
    rerank: Rerank
    diversity: Diversity
    include_vectors: bool
    def __init__(self, collection: _Optional[str] = ..., mode: _Optional[_Union[RetrievalMode, str]] = ..., top_k: _Optional[int] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., fusion: _Optional[_Union[Fusion, _Mapping]] = ..., temperature: _Optional[float] = ..., min_sequence: _Optional[int] = ..., index_generation: _Optional[int] = ..., num_candidates: _Optional[int] = ..., min_score: _Optional[float] = ..., num_neighbors: _Optional[int] = ..., rerank: _Optional[_Union[Rerank, _Mapping]] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ..., include_vectors: _Optional[bool] = ...) -> None: ...

class Rerank(_message.Message):
    __slots__ = ("method", "num_candidates", "answerability_weight")
    class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        METHOD_UNSPECIFIED: _ClassVar[Rerank.Method]
        METHOD_CROSS_ENCODER: _ClassVar[Rerank.Method]
        METHOD_QUESTION_LIKELIHOOD: _ClassVar[Rerank.Method]
        METHOD_ANSWERABILITY: _ClassVar[Rerank.Method]
    METHOD_UNSPECIFIED: Rerank.Method
    METHOD_CROSS_ENCODER: Rerank.Method
    METHOD_QUESTION_LIKELIHOOD: Rerank.Method
    METHOD_ANSWERABILITY: Rerank.Method
    METHOD_FIELD_NUMBER: _ClassVar[int]
    NUM_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    ANSWERABILITY_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    method: Rerank.Method
    num_candidates: int
    answerability_weight: float
    def __init__(self, method: _Optional[_Union[Rerank.Method, str]] = ..., num_candidates: _Optional[int] = ..., answerability_weight: _Optional[float] = ...) -> None: ...

class Diversity(_message.Message):
    __slots__ = ("relevance",)
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    relevance: float
    def __init__(self, relevance: _Optional[float] = ...) -> None: ...

class RetrievedPassage(_message.Message):
    __slots__ = ("passage", "rank", "score", "dense_score", "lexical_score", "rerank_score", "log_prior", "neighbors", "vector")
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DENSE_SCORE_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_SCORE_FIELD_NUMBER: _ClassVar[int]
    RERANK_SCORE_FIELD_NUMBER: _ClassVar[int]
    LOG_PRIOR_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    passage: Passage
    rank: int
    score: float
    dense_score: float
    lexical_score: float
    rerank_score: float
    log_prior: float
    neighbors: _containers.RepeatedCompositeFieldContainer[Passage]
    vector: Vector
    def __init__(self, passage: _Optional[_Union[Passage, _Mapping]] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ..., dense_score: _Optional[float] = ..., lexical_score: _Optional[float] = ..., rerank_score: _Optional[float] = ..., log_prior: _Optional[float] = ..., neighbors: _Optional[_Iterable[_Union[Passage, _Mapping]]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class DecodingOptions(_message.Message):
    __slots__ = ("model", "sequence_scoring", "num_beams", "max_new_tokens", "min_new_tokens", "length_penalty", "no_repeat_ngram_size", "bad_words", "forced_words", "stop", "num_return_sequences", "sampling", "candidate_ranking", "prune_prior_mass", "early_stopping")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_SCORING_FIELD_NUMBER: _ClassVar[int]
    NUM_BEAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    NO_REPEAT_NGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    BAD_WORDS_FIELD_NUMBER: _ClassVar[int]
    FORCED_WORDS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    NUM_RETURN_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_RANKING_FIELD_NUMBER: _ClassVar[int]
    PRUNE_PRIOR_MASS_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    model: DecodingModel
    sequence_scoring: SequenceScoring
    num_beams: int
    max_new_tokens: int
    min_new_tokens: int
    length_penalty: float
    no_repeat_ngram_size: int
    bad_words: _containers.RepeatedScalarFieldContainer[str]
    forced_words: _containers.RepeatedScalarFieldContainer[str]
    stop: _containers.RepeatedScalarFieldContainer[str]
    num_return_sequences: int
    sampling: Sampling
    candidate_ranking: CandidateRanking
    prune_prior_mass: float
    early_stopping: bool
    def __init__(self, model: _Optional[_Union[DecodingModel, str]] = ..., sequence_scoring: _Optional[_Union[SequenceScoring, str]] = ..., num_beams: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., min_new_tokens: _Optional[int] = ..., length_penalty: _Optional[float] = ..., no_repeat_ngram_size: _Optional[int] = ..., bad_words: _Optional[_Iterable[str]] = ..., forced_words: _Optional[_Iterable[str]] = ..., stop: _Optional[_Iterable[str]] = ..., num_return_sequences: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., candidate_ranking: _Optional[_Union[CandidateRanking, _Mapping]] = ..., prune_prior_mass: _Optional[float] = ..., early_stopping: _Optional[bool] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class CandidateRanking(_message.Message):
    __slots__ = ("num_candidates", "generation_weight", "retrieval_weight")
    NUM_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    num_candidates: int
    generation_weight: float
    retrieval_weight: float
    def __init__(self, num_candidates: _Optional[int] = ..., generation_weight: _Optional[float] = ..., retrieval_weight: _Optional[float] = ...) -> None: ...

class ExplanationOptions(_message.Message):
    __slots__ = ("token_posteriors", "leave_one_out")
    TOKEN_POSTERIORS_FIELD_NUMBER: _ClassVar[int]
    LEAVE_ONE_OUT_FIELD_NUMBER: _ClassVar[int]
    token_posteriors: bool
    leave_one_out: bool
    def __init__(self, token_posteriors: _Optional[bool] = ..., leave_one_out: _Optional[bool] = ...) -> None: ...

class TokenAttribution(_message.Message):
    __slots__ = ("token_id", "text", "log_probability", "posteriors")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    POSTERIORS_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    text: str
    log_probability: float
    posteriors: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, token_id: _Optional[int] = ..., text: _Optional[str] = ..., log_probability: _Optional[float] = ..., posteriors: _Optional[_Iterable[float]] = ...) -> None: ...

class Hypothesis(_message.Message):
    __slots__ = ("text", "raw_text", "log_probability", "posteriors", "retrieval_score", "ranking_score", "confidence", "finish_reason", "num_new_tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RAW_TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    POSTERIORS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_SCORE_FIELD_NUMBER: _ClassVar[int]
    RANKING_SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    raw_text: str
    log_probability: float
    posteriors: _containers.RepeatedScalarFieldContainer[float]
    retrieval_score: float
    ranking_score: float
    confidence: float
    finish_reason: FinishReason
    num_new_tokens: int
    def __init__(self, text: _Optional[str] = ..., raw_text: _Optional[str] = ..., log_probability: _Optional[float] = ..., posteriors: _Optional[_Iterable[float]] = ..., retrieval_score: _Optional[float] = ..., ranking_score: _Optional[float] = ..., confidence: _Optional[float] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., num_new_tokens: _Optional[int] = ...) -> None: ...

class LeaveOneOut(_message.Message):
    __slots__ = ("passage_id", "flips", "exact", "text", "log_probability")
    PASSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FLIPS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    passage_id: str
    flips: bool
    exact: bool
    text: str
    log_probability: float
    def __init__(self, passage_id: _Optional[str] = ..., flips: _Optional[bool] = ..., exact: _Optional[bool] = ..., text: _Optional[str] = ..., log_probability: _Optional[float] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "duration_seconds")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    stage: Stage
    duration_seconds: float
    def __init__(self, stage: _Optional[_Union[Stage, str]] = ..., duration_seconds: _Optional[float] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("collection", "index_generation", "sequence", "index_digest", "encoder", "encoder_digest", "generator", "generator_digest", "build_version", "collection_state")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEX_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    ENCODER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BUILD_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_STATE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index_generation: int
    sequence: int
    index_digest: str
    encoder: str
    encoder_digest: str
    generator: str
    generator_digest: str
    build_version: str
    collection_state: str
    def __init__(self, collection: _Optional[str] = ..., index_generation: _Optional[int] = ..., sequence: _Optional[int] = ..., index_digest: _Optional[str] = ..., encoder: _Optional[str] = ..., encoder_digest: _Optional[str] = ..., generator: _Optional[str] = ..., generator_digest: _Optional[str] = ..., build_version: _Optional[str] = ..., collection_state: _Optional[str] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("name", "value", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "digest", "architecture", "dtype", "device", "num_parameters", "dim", "max_input_tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    architecture: str
    dtype: str
    device: str
    num_parameters: int
    dim: int
    max_input_tokens: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., architecture: _Optional[str] = ..., dtype: _Optional[str] = ..., device: _Optional[str] = ..., num_parameters: _Optional[int] = ..., dim: _Optional[int] = ..., max_input_tokens: _Optional[int] = ...) -> None: ...

class ServiceInfo(_message.Message):
    __slots__ = ("service", "build_version", "started_at", "limits")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    BUILD_VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    service: str
    build_version: str
    started_at: _timestamp_pb2.Timestamp
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    def __init__(self, service: _Optional[str] = ..., build_version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ...) -> None: ...
