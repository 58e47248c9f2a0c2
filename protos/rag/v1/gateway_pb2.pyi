import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from protos.rag.v1 import common_pb2 as _common_pb2
from protos.rag.v1 import generator_pb2 as _generator_pb2
from protos.rag.v1 import retriever_pb2 as _retriever_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_QUESTION_ANSWERING: _ClassVar[Task]
    TASK_DIALOGUE: _ClassVar[Task]
    TASK_SUMMARIZATION: _ClassVar[Task]
    TASK_DOCUMENT_GENERATION: _ClassVar[Task]
    TASK_RECOMMENDATION: _ClassVar[Task]
    TASK_TRANSLATION: _ClassVar[Task]
    TASK_FACT_VERIFICATION: _ClassVar[Task]
TASK_UNSPECIFIED: Task
TASK_QUESTION_ANSWERING: Task
TASK_DIALOGUE: Task
TASK_SUMMARIZATION: Task
TASK_DOCUMENT_GENERATION: Task
TASK_RECOMMENDATION: Task
TASK_TRANSLATION: Task
TASK_FACT_VERIFICATION: Task

class Turn(_message.Message):
    __slots__ = ("role", "text")
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ROLE_UNSPECIFIED: _ClassVar[Turn.Role]
        ROLE_USER: _ClassVar[Turn.Role]
        ROLE_ASSISTANT: _ClassVar[Turn.Role]
    ROLE_UNSPECIFIED: Turn.Role
    ROLE_USER: Turn.Role
    ROLE_ASSISTANT: Turn.Role
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    role: Turn.Role
    text: str
    def __init__(self, role: _Optional[_Union[Turn.Role, str]] = ..., text: _Optional[str] = ...) -> None: ...

class AnswerOptions(_message.Message):
    __slots__ = ("retrieval", "decoding", "explanation", "min_confidence", "history", "labels", "summarization", "document", "recommendation", "translation")
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    DECODING_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    MIN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SUMMARIZATION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATION_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_FIELD_NUMBER: _ClassVar[int]
    retrieval: _common_pb2.RetrievalOptions
    decoding: _common_pb2.DecodingOptions
    explanation: _common_pb2.ExplanationOptions
    min_confidence: float
    history: HistoryOptions
    labels: _containers.RepeatedScalarFieldContainer[str]
    summarization: SummarizationOptions
    document: DocumentOptions
    recommendation: RecommendationOptions
    translation: TranslationOptions
    def __init__(self, retrieval: _Optional[_Union[_common_pb2.RetrievalOptions, _Mapping]] = ..., decoding: _Optional[_Union[_common_pb2.DecodingOptions, _Mapping]] = ..., explanation: _Optional[_Union[_common_pb2.ExplanationOptions, _Mapping]] = ..., min_confidence: _Optional[float] = ..., history: _Optional[_Union[HistoryOptions, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ..., summarization: _Optional[_Union[SummarizationOptions, _Mapping]] = ..., document: _Optional[_Union[DocumentOptions, _Mapping]] = ..., recommendation: _Optional[_Union[RecommendationOptions, _Mapping]] = ..., translation: _Optional[_Union[TranslationOptions, _Mapping]] = ...) -> None: ...

class HistoryOptions(_message.Message):
    __slots__ = ("mode", "turn_discount", "num_turns")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[HistoryOptions.Mode]
        MODE_RAG_TURN: _ClassVar[HistoryOptions.Mode]
        MODE_QUERY_REWRITING: _ClassVar[HistoryOptions.Mode]
    MODE_UNSPECIFIED: HistoryOptions.Mode
    MODE_RAG_TURN: HistoryOptions.Mode
    MODE_QUERY_REWRITING: HistoryOptions.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    TURN_DISCOUNT_FIELD_NUMBER: _ClassVar[int]
    NUM_TURNS_FIELD_NUMBER: _ClassVar[int]
    mode: HistoryOptions.Mode
    turn_discount: float
    num_turns: int
    def __init__(self, mode: _Optional[_Union[HistoryOptions.Mode, str]] = ..., turn_discount: _Optional[float] = ..., num_turns: _Optional[int] = ...) -> None: ...

class SummarizationOptions(_message.Message):
    __slots__ = ("source",)
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    source: str
    def __init__(self, source: _Optional[str] = ...) -> None: ...

class DocumentOptions(_message.Message):
    __slots__ = ("max_sections",)
    MAX_SECTIONS_FIELD_NUMBER: _ClassVar[int]
    max_sections: int
    def __init__(self, max_sections: _Optional[int] = ...) -> None: ...

class RecommendationOptions(_message.Message):
    __slots__ = ("liked_sources", "item_field")
    LIKED_SOURCES_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_FIELD_NUMBER: _ClassVar[int]
    liked_sources: _containers.RepeatedScalarFieldContainer[str]
    item_field: str
    def __init__(self, liked_sources: _Optional[_Iterable[str]] = ..., item_field: _Optional[str] = ...) -> None: ...

class TranslationOptions(_message.Message):
    __slots__ = ("field",)
    FIELD_FIELD_NUMBER: _ClassVar[int]
    field: str
    def __init__(self, field: _Optional[str] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("question", "history", "task", "options")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    question: str
    history: _containers.RepeatedCompositeFieldContainer[Turn]
    task: Task
    options: AnswerOptions
    def __init__(self, question: _Optional[str] = ..., history: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., task: _Optional[_Union[Task, str]] = ..., options: _Optional[_Union[AnswerOptions, _Mapping]] = ...) -> None: ...

class CitedPassage(_message.Message):
    __slots__ = ("retrieved", "prior", "posterior")
    RETRIEVED_FIELD_NUMBER: _ClassVar[int]
    PRIOR_FIELD_NUMBER: _ClassVar[int]
    POSTERIOR_FIELD_NUMBER: _ClassVar[int]
    retrieved: _common_pb2.RetrievedPassage
    prior: float
    posterior: float
    def __init__(self, retrieved: _Optional[_Union[_common_pb2.RetrievedPassage, _Mapping]] = ..., prior: _Optional[float] = ..., posterior: _Optional[float] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("answer_id", "text", "raw_text", "finish_reason", "log_probability", "confidence", "citations", "tokens", "hypotheses", "leave_one_out", "model", "pruned_prior_mass", "num_new_tokens", "num_input_tokens", "from_cache", "rewritten_question", "labels", "sections", "items")
    ANSWER_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RAW_TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
    LEAVE_ONE_OUT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRUNED_PRIOR_MASS_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FROM_CACHE_FIELD_NUMBER: _ClassVar[int]
    REWRITTEN_QUESTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    answer_id: str
    text: str
    raw_text: str
    finish_reason: _common_pb2.FinishReason
    log_probability: float
    confidence: float
    citations: _containers.RepeatedCompositeFieldContainer[CitedPassage]
    tokens: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenAttribution]
    hypotheses: _containers.RepeatedCompositeFieldContainer[_common_pb2.Hypothesis]
    leave_one_out: _containers.RepeatedCompositeFieldContainer[_common_pb2.LeaveOneOut]
    model: _common_pb2.DecodingModel
    pruned_prior_mass: float
    num_new_tokens: int
    num_input_tokens: int
    from_cache: bool
    rewritten_question: str
    labels: _containers.RepeatedCompositeFieldContainer[LabelProbability]
    sections: _containers.RepeatedCompositeFieldContainer[Section]
    items: _containers.RepeatedCompositeFieldContainer[RecommendedItem]
    def __init__(self, answer_id: _Optional[str] = ..., text: _Optional[str] = ..., raw_text: _Optional[str] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., log_probability: _Optional[float] = ..., confidence: _Optional[float] = ..., citations: _Optional[_Iterable[_Union[CitedPassage, _Mapping]]] = ..., tokens: _Optional[_Iterable[_Union[_common_pb2.TokenAttribution, _Mapping]]] = ..., hypotheses: _Optional[_Iterable[_Union[_common_pb2.Hypothesis, _Mapping]]] = ..., leave_one_out: _Optional[_Iterable[_Union[_common_pb2.LeaveOneOut, _Mapping]]] = ..., model: _Optional[_Union[_common_pb2.DecodingModel, str]] = ..., pruned_prior_mass: _Optional[float] = ..., num_new_tokens: _Optional[int] = ..., num_input_tokens: _Optional[int] = ..., from_cache: _Optional[bool] = ..., rewritten_question: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[LabelProbability, _Mapping]]] = ..., sections: _Optional[_Iterable[_Union[Section, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[RecommendedItem, _Mapping]]] = ...) -> None: ...

class LabelProbability(_message.Message):
    __slots__ = ("label", "probability", "log_probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    log_probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ..., log_probability: _Optional[float] = ...) -> None: ...

class Section(_message.Message):
    __slots__ = ("heading", "text", "prior", "log_probability", "confidence", "citations")
    HEADING_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PRIOR_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    heading: str
    text: str
    prior: float
    log_probability: float
    confidence: float
    citations: _containers.RepeatedCompositeFieldContainer[CitationPlace]
    def __init__(self, heading: _Optional[str] = ..., text: _Optional[str] = ..., prior: _Optional[float] = ..., log_probability: _Optional[float] = ..., confidence: _Optional[float] = ..., citations: _Optional[_Iterable[_Union[CitationPlace, _Mapping]]] = ...) -> None: ...

class RecommendedItem(_message.Message):
    __slots__ = ("name", "probability", "citations")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    probability: float
    citations: _containers.RepeatedCompositeFieldContainer[CitationPlace]
    def __init__(self, name: _Optional[str] = ..., probability: _Optional[float] = ..., citations: _Optional[_Iterable[_Union[CitationPlace, _Mapping]]] = ...) -> None: ...

class CitationPlace(_message.Message):
    __slots__ = ("index", "posterior")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    POSTERIOR_FIELD_NUMBER: _ClassVar[int]
    index: int
    posterior: float
    def __init__(self, index: _Optional[int] = ..., posterior: _Optional[float] = ...) -> None: ...

class AnswerResponse(_message.Message):
    __slots__ = ("answer", "provenance", "timings")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    answer: Answer
    provenance: _common_pb2.Provenance
    timings: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    def __init__(self, answer: _Optional[_Union[Answer, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ...) -> None: ...

class StreamAnswerRequest(_message.Message):
    __slots__ = ("question", "history", "task", "options")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    question: str
    history: _containers.RepeatedCompositeFieldContainer[Turn]
    task: Task
    options: AnswerOptions
    def __init__(self, question: _Optional[str] = ..., history: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., task: _Optional[_Union[Task, str]] = ..., options: _Optional[_Union[AnswerOptions, _Mapping]] = ...) -> None: ...

class StreamAnswerResponse(_message.Message):
    __slots__ = ("stage", "passages", "delta", "final")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    stage: StageEvent
    passages: RetrievedPassages
    delta: _generator_pb2.TokenDelta
    final: AnswerResponse
    def __init__(self, stage: _Optional[_Union[StageEvent, _Mapping]] = ..., passages: _Optional[_Union[RetrievedPassages, _Mapping]] = ..., delta: _Optional[_Union[_generator_pb2.TokenDelta, _Mapping]] = ..., final: _Optional[_Union[AnswerResponse, _Mapping]] = ...) -> None: ...

class StageEvent(_message.Message):
    __slots__ = ("timing", "section")
    TIMING_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    timing: _common_pb2.StageTiming
    section: str
    def __init__(self, timing: _Optional[_Union[_common_pb2.StageTiming, _Mapping]] = ..., section: _Optional[str] = ...) -> None: ...

class RetrievedPassages(_message.Message):
    __slots__ = ("passages", "provenance")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[_common_pb2.RetrievedPassage]
    provenance: _common_pb2.Provenance
    def __init__(self, passages: _Optional[_Iterable[_Union[_common_pb2.RetrievedPassage, _Mapping]]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...

class CompareAnswersRequest(_message.Message):
    __slots__ = ("question", "options", "index_generations")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INDEX_GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    question: str
    options: AnswerOptions
    index_generations: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, question: _Optional[str] = ..., options: _Optional[_Union[AnswerOptions, _Mapping]] = ..., index_generations: _Optional[_Iterable[int]] = ...) -> None: ...

class CompareAnswersResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[AnswerResponse]
    def __init__(self, answers: _Optional[_Iterable[_Union[AnswerResponse, _Mapping]]] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("answer_id", "rating", "expected_answer", "comment", "helpful_passage_ids", "created_at")
    class Rating(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RATING_UNSPECIFIED: _ClassVar[Feedback.Rating]
        RATING_GOOD: _ClassVar[Feedback.Rating]
        RATING_BAD: _ClassVar[Feedback.Rating]
    RATING_UNSPECIFIED: Feedback.Rating
    RATING_GOOD: Feedback.Rating
    RATING_BAD: Feedback.Rating
    ANSWER_ID_FIELD_NUMBER: _ClassVar[int]
    RATING_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ANSWER_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    HELPFUL_PASSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    answer_id: str
    rating: Feedback.Rating
    expected_answer: str
    comment: str
    helpful_passage_ids: _containers.RepeatedScalarFieldContainer[str]
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, answer_id: _Optional[str] = ..., rating: _Optional[_Union[Feedback.Rating, str]] = ..., expected_answer: _Optional[str] = ..., comment: _Optional[str] = ..., helpful_passage_ids: _Optional[_Iterable[str]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SendFeedbackRequest(_message.Message):
    __slots__ = ("feedback",)
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    feedback: Feedback
    def __init__(self, feedback: _Optional[_Union[Feedback, _Mapping]] = ...) -> None: ...

class SendFeedbackResponse(_message.Message):
    __slots__ = ("feedback_id",)
    FEEDBACK_ID_FIELD_NUMBER: _ClassVar[int]
    feedback_id: str
    def __init__(self, feedback_id: _Optional[str] = ...) -> None: ...

class GatewayServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GatewayServiceGetInfoResponse(_message.Message):
    __slots__ = ("service", "retriever", "generator")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    RETRIEVER_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    service: _common_pb2.ServiceInfo
    retriever: _retriever_pb2.RetrieverServiceGetInfoResponse
    generator: _generator_pb2.GeneratorServiceGetInfoResponse
    def __init__(self, service: _Optional[_Union[_common_pb2.ServiceInfo, _Mapping]] = ..., retriever: _Optional[_Union[_retriever_pb2.RetrieverServiceGetInfoResponse, _Mapping]] = ..., generator: _Optional[_Union[_generator_pb2.GeneratorServiceGetInfoResponse, _Mapping]] = ...) -> None: ...
