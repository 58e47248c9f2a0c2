"""What passes between the stages of an answer, and what the pipeline asks of each stage. Plain values."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from gateway.ranking import CandidateWeights, LikelihoodRerank, Vectors

Message: TypeAlias = Any  #: A message of the contract, carried and never looked into.

NO_PASSAGES, ABSTAINED = "no_passages", "abstained"


@dataclass(frozen=True, slots=True)
class Question:
    """A question that passed validation.

    Attributes:
        text: Not blank.
        options: AnswerOptions, for the stages, with the defaults of the call's kind filled in.
        min_confidence: The caller's threshold, None to take the gateway's, or the generator's.
        needs_passages: False for a closed-book answer: nothing is retrieved.
        streams_tokens: Whether the decoding model can send its tokens as they come.
        rerank: How the hits are reranked before generation, if at all.
        ranking: How candidate answers are ranked, if several are made.
        cache_key: Equal for questions of equal answers, `min_confidence` left aside; None where answers are random.
    """

    text: str
    options: Message
    min_confidence: float | None = None
    needs_passages: bool = True
    streams_tokens: bool = False
    rerank: LikelihoodRerank | None = None
    ranking: CandidateWeights | None = None
    cache_key: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Passages as their encoder sees them: `vectors` (N, D), and what comparing them with a text's takes."""

    vectors: Vectors
    temperature: float
    is_cosine: bool
    encoder_digest: str


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found, best first.

    Attributes:
        passages: The hits.
        log_priors: log p(d|x), parallel to `passages`.
        space: Only for a question that ranks candidates.
        state: Names what was searched; empty where the retriever does not say.
        num_bytes: Its size on the wire.
    """

    passages: Sequence[Message] = ()
    log_priors: Sequence[float] = ()
    space: Space | None = None
    state: str = ""
    num_bytes: int = 0
    provenance: Message = None
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Generation:
    """What was decoded; the rest of it is `message`.

    Attributes:
        posteriors: p(d|x,y), parallel to the passages.
        min_confidence: What the generator's checkpoint advises as a threshold; 0 is none.
        digest: Of the generator; empty where it does not say.
        num_bytes: Its size on the wire.
        chosen: The answer's place among the candidates as generated; None where none were ranked.
    """

    message: Message
    finish_reason: str
    model: str
    confidence: float
    posteriors: Sequence[float]
    min_confidence: float = 0.0
    digest: str = ""
    num_bytes: int = 0
    chosen: int | None = None
    provenance: Message = None
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """What an answer is presented from; `generation` is None when nothing was decoded."""

    retrieval: Retrieval
    generation: Generation | None
    from_cache: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of an answer under way."""

    message: Message


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage by its place in the retrieval, with p(d|x) and p(d|x,y)."""

    index: int
    prior: float
    posterior: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with all that explains it; `generation` is None when nothing was decoded."""

    answer_id: str
    finish_reason: str
    citations: Sequence[Citation]
    retrieval: Retrieval
    generation: Generation | None
    timings: Mapping[str, float]
    from_cache: bool = False

    @property
    def has_text(self) -> bool:
        """Whether there is an answer to show."""
        return self.finish_reason not in (NO_PASSAGES, ABSTAINED)


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage of a streamed answer has ended."""

    stage: str
    seconds: float


Event: TypeAlias = StageEnded | Retrieval | Delta | Answer


class Retriever(Protocol):
    """Finds the passages for a question."""

    async def retrieve(self, question: Question, *, timeout: float | None) -> Retrieval:
        """At most `timeout` seconds; raises a RagError."""

    async def rank(
        self, question: Question, retrieval: Retrieval, generation: Generation, *, timeout: float | None
    ) -> Generation:
        """Lets the encoder choose among the generation's candidates. Raises a RagError."""

    async def state(self, question: Question, *, timeout: float | None) -> str:
        """The state that the question's passages would come from now; cheap. Raises a RagError."""


class Generator(Protocol):
    """Decodes an answer from passages."""

    async def rerank(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Retrieval:
        """The best passages by log p(question | passage), as `question.rerank` says. Raises a RagError."""

    async def digest(self, *, timeout: float | None) -> str:
        """The digest of the generator that answers now; cheap. Raises a RagError."""

    async def generate(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Generation:
        """At most `timeout` seconds; raises a RagError."""

    def stream(
        self, question: Question, retrieval: Retrieval, *, timeout: float | None
    ) -> AsyncGenerator[Delta | Generation, None]:
        """Deltas, then once the generation that replaces them."""
