"""What questions are given and answered with: plain frozen values, as in `types.py`."""

from dataclasses import dataclass
from typing import TypeAlias

from rag_client.enums import DecodingModel, FinishReason, Role
from rag_client.types import Passage, Provenance, RetrievedPassage, StageTiming


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier turn: of a dialogue, or something that a user likes."""

    role: Role | str  #: "user" or "assistant".
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Citation:
    """A passage that the answer was made from."""

    retrieved: RetrievedPassage
    prior: float  #: p(d|x).
    posterior: float  #: p(d|x,y): the share of the answer that this passage explains.

    @property
    def passage(self) -> Passage:
        """The cited passage itself."""
        return self.retrieved.passage


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token; `posteriors` are p(d_i | x, y_<=t) in the order of the citations."""

    token_id: int
    text: str
    log_probability: float
    posteriors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished sequence that the decoder also considered; posteriors in the order of the citations."""

    text: str
    raw_text: str
    log_probability: float
    posteriors: tuple[float, ...] = ()
    retrieval_score: float | None = None  #: Candidate ranking: log sum_i exp(s(x + c, d_i) / tau).
    ranking_score: float | None = None  #: Candidate ranking: the weighted sum that chose.
    confidence: float = 0.0
    finish_reason: FinishReason = FinishReason.UNSPECIFIED
    num_new_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The answer without one passage."""

    passage_id: str
    flips: bool
    exact: bool
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """One of the labels of a fact verification."""

    label: str
    probability: float  #: p(label|x) over the sum for all labels.
    log_probability: float  #: log p(label|x).


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """One section of a generated document; its citations' posteriors are its own."""

    heading: str
    text: str
    prior: float  #: Prior mass of its passages; sums to 1 over the sections.
    log_probability: float
    confidence: float
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RecommendedItem:
    """One thing recommended, with at most three passages that explain it; their posteriors are shares of it."""

    name: str  #: A source, or the value of `item_field`.
    probability: float  #: p(item|history).
    citations: tuple[Citation, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """An answer with everything that explains it. Citations come by posterior, highest first."""

    answer_id: str
    text: str
    raw_text: str
    finish_reason: FinishReason
    log_probability: float
    confidence: float  #: Calibrated probability that the answer is right, in [0, 1].
    model: DecodingModel | None
    citations: tuple[Citation, ...]
    provenance: Provenance
    timings: tuple[StageTiming, ...]
    tokens: tuple[Token, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    leave_one_out: tuple[LeaveOneOut, ...] = ()
    pruned_prior_mass: float = 0.0
    num_new_tokens: int = 0
    num_input_tokens: int = 0
    from_cache: bool = False  #: Decoded for an earlier, equal question.
    rewritten_question: str = ""  #: Dialogue: what the question became, where it was rewritten.
    labels: tuple[LabelProbability, ...] = ()  #: Fact verification: the most probable first; the first is the text.
    sections: tuple[Section, ...] = ()  #: Document generation; the text is Markdown.
    items: tuple[RecommendedItem, ...] = ()  #: Recommendation: the best first.

    @property
    def is_answered(self) -> bool:
        """False when nothing was retrieved or the confidence was under the threshold: `text` is then empty."""
        return self.finish_reason not in (FinishReason.NO_PASSAGES, FinishReason.ABSTAINED)


@dataclass(frozen=True, slots=True)
class StageEnded:
    """Event: a stage of a streamed answer has ended; with `section`, that section of a document."""

    timing: StageTiming
    section: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PassagesRetrieved:
    """Event: the passages that the answer will be made from, best first."""

    passages: tuple[RetrievedPassage, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """Event: new text; append it to what came before."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class FinalAnswer:
    """Event, once and last: the definitive answer, which replaces the deltas."""

    answer: Answer


Event: TypeAlias = StageEnded | PassagesRetrieved | TokenDelta | FinalAnswer
