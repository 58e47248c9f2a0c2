from protos.rag.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GeneratorPassage(_message.Message):
    __slots__ = ("id", "title", "text", "log_prior", "score")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PRIOR_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    text: str
    log_prior: float
    score: float
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., log_prior: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...

class GenerationInput(_message.Message):
    __slots__ = ("question", "passages")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    question: str
    passages: _containers.RepeatedCompositeFieldContainer[GeneratorPassage]
    def __init__(self, question: _Optional[str] = ..., passages: _Optional[_Iterable[_Union[GeneratorPassage, _Mapping]]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("input", "decoding", "explanation")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DECODING_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    input: GenerationInput
    decoding: _common_pb2.DecodingOptions
    explanation: _common_pb2.ExplanationOptions
    def __init__(self, input: _Optional[_Union[GenerationInput, _Mapping]] = ..., decoding: _Optional[_Union[_common_pb2.DecodingOptions, _Mapping]] = ..., explanation: _Optional[_Union[_common_pb2.ExplanationOptions, _Mapping]] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("text", "raw_text", "finish_reason", "log_probability", "confidence", "log_priors", "posteriors", "tokens", "hypotheses", "leave_one_out", "num_new_tokens", "num_input_tokens", "pruned_prior_mass", "model", "min_confidence")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RAW_TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LOG_PRIORS_FIELD_NUMBER: _ClassVar[int]
    POSTERIORS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
    LEAVE_ONE_OUT_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRUNED_PRIOR_MASS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MIN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    raw_text: str
    finish_reason: _common_pb2.FinishReason
    log_probability: float
    confidence: float
    log_priors: _containers.RepeatedScalarFieldContainer[float]
    posteriors: _containers.RepeatedScalarFieldContainer[float]
    tokens: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenAttribution]
    hypotheses: _containers.RepeatedCompositeFieldContainer[_common_pb2.Hypothesis]
    leave_one_out: _containers.RepeatedCompositeFieldContainer[_common_pb2.LeaveOneOut]
    num_new_tokens: int
    num_input_tokens: int
    pruned_prior_mass: float
    model: _common_pb2.DecodingModel
    min_confidence: float
    def __init__(self, text: _Optional[str] = ..., raw_text: _Optional[str] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., log_probability: _Optional[float] = ..., confidence: _Optional[float] = ..., log_priors: _Optional[_Iterable[float]] = ..., posteriors: _Optional[_Iterable[float]] = ..., tokens: _Optional[_Iterable[_Union[_common_pb2.TokenAttribution, _Mapping]]] = ..., hypotheses: _Optional[_Iterable[_Union[_common_pb2.Hypothesis, _Mapping]]] = ..., leave_one_out: _Optional[_Iterable[_Union[_common_pb2.LeaveOneOut, _Mapping]]] = ..., num_new_tokens: _Optional[int] = ..., num_input_tokens: _Optional[int] = ..., pruned_prior_mass: _Optional[float] = ..., model: _Optional[_Union[_common_pb2.DecodingModel, str]] = ..., min_confidence: _Optional[float] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("generation", "provenance", "timings")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    generation: Generation
    provenance: _common_pb2.Provenance
    timings: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    def __init__(self, generation: _Optional[_Union[Generation, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ...) -> None: ...

class StreamGenerateRequest(_message.Message):
    __slots__ = ("input", "decoding", "explanation")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DECODING_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    input: GenerationInput
    decoding: _common_pb2.DecodingOptions
    explanation: _common_pb2.ExplanationOptions
    def __init__(self, input: _Optional[_Union[GenerationInput, _Mapping]] = ..., decoding: _Optional[_Union[_common_pb2.DecodingOptions, _Mapping]] = ..., explanation: _Optional[_Union[_common_pb2.ExplanationOptions, _Mapping]] = ...) -> None: ...

class StreamGenerateResponse(_message.Message):
    __slots__ = ("delta", "final")
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    delta: TokenDelta
    final: GenerateResponse
    def __init__(self, delta: _Optional[_Union[TokenDelta, _Mapping]] = ..., final: _Optional[_Union[GenerateResponse, _Mapping]] = ...) -> None: ...

class TokenDelta(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenAttribution]
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[_common_pb2.TokenAttribution, _Mapping]]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("input", "answers", "model", "score_question", "score_no_answer")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_QUESTION_FIELD_NUMBER: _ClassVar[int]
    SCORE_NO_ANSWER_FIELD_NUMBER: _ClassVar[int]
    input: GenerationInput
    answers: _containers.RepeatedScalarFieldContainer[str]
    model: _common_pb2.DecodingModel
    score_question: bool
    score_no_answer: bool
    def __init__(self, input: _Optional[_Union[GenerationInput, _Mapping]] = ..., answers: _Optional[_Iterable[str]] = ..., model: _Optional[_Union[_common_pb2.DecodingModel, str]] = ..., score_question: _Optional[bool] = ..., score_no_answer: _Optional[bool] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores", "provenance", "timings")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[AnswerScore]
    provenance: _common_pb2.Provenance
    timings: _containers.RepeatedCompositeFieldContainer[_common_pb2.StageTiming]
    def __init__(self, scores: _Optional[_Iterable[_Union[AnswerScore, _Mapping]]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[_common_pb2.StageTiming, _Mapping]]] = ...) -> None: ...

class AnswerScore(_message.Message):
    __slots__ = ("log_probability", "posteriors", "passage_log_probabilities", "tokens")
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    POSTERIORS_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    log_probability: float
    posteriors: _containers.RepeatedScalarFieldContainer[float]
    passage_log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    tokens: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenAttribution]
    def __init__(self, log_probability: _Optional[float] = ..., posteriors: _Optional[_Iterable[float]] = ..., passage_log_probabilities: _Optional[_Iterable[float]] = ..., tokens: _Optional[_Iterable[_Union[_common_pb2.TokenAttribution, _Mapping]]] = ...) -> None: ...

class GeneratorServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GeneratorServiceGetInfoResponse(_message.Message):
    __slots__ = ("service", "generator", "prompt_format", "models", "tasks", "max_new_tokens")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    service: _common_pb2.ServiceInfo
    generator: _common_pb2.ModelInfo
    prompt_format: str
    models: _containers.RepeatedScalarFieldContainer[_common_pb2.DecodingModel]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskPrompt]
    max_new_tokens: int
    def __init__(self, service: _Optional[_Union[_common_pb2.ServiceInfo, _Mapping]] = ..., generator: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., prompt_format: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_common_pb2.DecodingModel, str]]] = ..., tasks: _Optional[_Iterable[_Union[TaskPrompt, _Mapping]]] = ..., max_new_tokens: _Optional[int] = ...) -> None: ...

class TaskPrompt(_message.Message):
    __slots__ = ("task", "template", "labels")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    task: str
    template: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task: _Optional[str] = ..., template: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...
