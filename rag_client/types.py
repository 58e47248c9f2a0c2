"""What the client gives and takes: plain frozen values, no wire messages.

Scores are raw and higher is better; times are in seconds; `log_*` are natural logarithms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rag_client.enums import DecodingModel, FinishReason, FusionMethod, RerankMethod

Vector: TypeAlias = npt.NDArray[np.float32]  #: One embedding, float32 (D,).
Value: TypeAlias = str | int | float | bool | tuple[str, ...]  #: One metadata value.


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A half-open range of characters in a document's extracted text."""

    start_char: int
    end_char: int
    page: int = 0  #: 1-based; 0 when the document has no pages.


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is retrieved and cited. `content_digest` and `sequence` are set by the server."""

    id: str
    text: str
    title: str = ""
    source: str = ""
    span: TextSpan | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    content_digest: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedPassage:
    """A passage whose embedding was already computed by the collection's encoder."""

    passage: Passage
    vector: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is looked for: text, a ready vector, or both (vector for the dense stage, text for the lexical one)."""

    text: str = ""
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Fusion:
    """How two rankings become one. What is None takes the collection's value."""

    method: FusionMethod | str | None = None
    dense_weight: float | None = None
    lexical_weight: float | None = None
    rrf_k: float | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sample instead of search. The same seed gives the same answer."""

    temperature: float | None = None
    top_k: int = 0
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class CandidateRanking:
    """Generate several answers, then let the retriever's encoder choose: the weighted sum of two logarithms decides."""

    num_candidates: int  #: 2 to 16.
    generation_weight: float | None = None  #: Of log p(c|x). Default 1.
    retrieval_weight: float | None = None  #: Of log sum_i exp(s(x + c, d_i) / tau). Default 1.


@dataclass(frozen=True, slots=True)
class Rerank:
    """A second look at the hits before the best are returned.

    "question_likelihood" wants a generator that was taught to write questions; the default one makes rankings worse.
    """

    method: RerankMethod | str
    num_candidates: int = 0  #: Hits that are read again, up to 100; 0 is the server's choice.


@dataclass(frozen=True, slots=True)
class Diversity:
    """Maximal marginal relevance: each passage is chosen for its score and against those chosen before it."""

    relevance: float | None = None  #: What the score weighs against novelty, in [0, 1]. Default 0.7.


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long one stage took; `stage` is e.g. "retrieve", "generate", "total"."""

    stage: str
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which artefacts made a reply. Digests are SHA-256 in hex."""

    collection: str = ""
    index_generation: int = 0
    sequence: int = 0
    index_digest: str = ""
    encoder: str = ""
    encoder_digest: str = ""
    generator: str = ""
    generator_digest: str = ""
    build_version: str = ""
    collection_state: str = ""  #: Two retrievals of the same state and options find the same.


@dataclass(frozen=True, slots=True, eq=False)
class RetrievedPassage:
    """A passage as one query found it. A stage that did not score it has None."""

    passage: Passage
    rank: int  #: 1-based.
    score: float
    log_prior: float  #: log p(d|x); sums to 1 (as probabilities) over the passages returned.
    dense_score: float | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
    neighbors: tuple[Passage, ...] = ()  #: Those before and after it in its source, in order.
    vector: Vector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """What one query found, best first. `error` is set where this query of a batch failed."""

    passages: tuple[RetrievedPassage, ...]
    provenance: Provenance
    timings: tuple[StageTiming, ...] = ()
    error: Exception | None = None


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

    @property
    def is_answered(self) -> bool:
        """False when nothing was retrieved or the confidence was under the threshold: `text` is then empty."""
        return self.finish_reason not in (FinishReason.NO_PASSAGES, FinishReason.ABSTAINED)


@dataclass(frozen=True, slots=True)
class StageEnded:
    """Event: a stage of a streamed answer has ended."""

    timing: StageTiming


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
