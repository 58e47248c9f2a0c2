"""What the generator is asked and what it answers: plain values, with the contract's names and units."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from generator_service.decoding.marginal import TokenShare
from generator_service.decoding.sampling import Sampling
from generator_service.decoding.search import Ending
from generator_service.entry import EngineTimings


class DecodingModel(Enum):
    """How passages are combined."""

    RAG_SEQUENCE = "RAG_SEQUENCE"
    RAG_TOKEN = "RAG_TOKEN"
    FUSION_IN_DECODER = "FUSION_IN_DECODER"
    CLOSED_BOOK = "CLOSED_BOOK"


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as the generator reads it; `log_prior` need not be normalised."""

    id: str
    title: str
    text: str
    log_prior: float = 0.0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How to decode; None or zero takes the checkpoint's generation config, then the stated default."""

    model: DecodingModel | None = None
    is_fast: bool = False
    num_beams: int = 0
    max_new_tokens: int = 0
    min_new_tokens: int | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int = 0
    bad_words: Sequence[str] = ()
    forced_words: Sequence[str] = ()
    stop: Sequence[str] = ()
    num_return_sequences: int = 0
    sampling: Sampling | None = None
    prune_prior_mass: float = 0.0
    early_stopping: bool = False
    num_candidates: int | None = None
    """Hypotheses for the caller to rank; None where none are to be ranked."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What to explain besides the posteriors."""

    token_posteriors: bool = False
    leave_one_out: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A question with its passages."""

    question: str
    passages: Sequence[Passage]
    options: DecodingOptions = field(default_factory=DecodingOptions)
    explanation: Explanation = field(default_factory=Explanation)


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """Answers whose probability is asked for, or the question's own: how well each passage explains it.

    `scores_no_answer` asks for that of the empty answer instead: how likely it is that a passage holds none.
    """

    question: str
    passages: Sequence[Passage]
    answers: Sequence[str] = ()
    model: DecodingModel | None = None
    scores_question: bool = False
    scores_no_answer: bool = False


@dataclass(frozen=True, slots=True)
class TokenAttribution:
    """A token, its own text, and its share of each passage."""

    token_id: int
    text: str
    share: TokenShare


@dataclass(frozen=True, slots=True)
class AnswerHypothesis:
    """A finished answer that was considered; posteriors in the passages' order."""

    text: str
    raw_text: str
    log_probability: float
    posteriors: Sequence[float]
    confidence: float
    ending: Ending
    num_new_tokens: int


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The answer without one passage; `text` is empty where not known. `log_probability` is the present answer's."""

    passage_id: str
    flips: bool
    exact: bool
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds per stage."""

    tokenize_seconds: float
    engine: EngineTimings
    total_seconds: float
    first_token_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer with its evidence; vectors are in the passages' order."""

    best: AnswerHypothesis
    log_priors: Sequence[float]
    tokens: Sequence[TokenAttribution]
    hypotheses: Sequence[AnswerHypothesis]
    leave_one_out: Sequence[LeaveOneOut]
    num_input_tokens: int
    pruned_prior_mass: float
    model: DecodingModel
    timings: Timings
    min_confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of an answer under way, and the tokens it is made of when asked for."""

    text: str
    tokens: Sequence[TokenAttribution] = ()


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """The probability of a given answer; fusion-in-decoder knows none per passage."""

    log_probability: float
    posteriors: Sequence[float]
    passage_log_probabilities: Sequence[float]
    tokens: Sequence[TokenAttribution]


@dataclass(frozen=True, slots=True)
class Scores:
    """The answers' scores, in their order."""

    answers: Sequence[AnswerScore]
    timings: Timings
