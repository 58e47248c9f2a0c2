"""What passes between the stages of an answer, and what the pipeline asks of each stage. Plain values."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Message: TypeAlias = Any  #: A message of the contract, carried and never looked into.

NO_PASSAGES, ABSTAINED = "no_passages", "abstained"


@dataclass(frozen=True, slots=True)
class Question:
    """A question that passed validation.

    Attributes:
        text: Not blank.
        options: AnswerOptions, for the stages, with the defaults of the call's kind filled in.
        min_confidence: The caller's threshold, None to take the gateway's.
        needs_passages: False for a closed-book answer: nothing is retrieved.
        streams_tokens: Whether the decoding model can send its tokens as they come.
    """

    text: str
    options: Message
    min_confidence: float | None = None
    needs_passages: bool = True
    streams_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found, best first: `log_priors` are log p(d|x), parallel to `passages`."""

    passages: Sequence[Message] = ()
    log_priors: Sequence[float] = ()
    provenance: Message = None
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Generation:
    """What was decoded: `posteriors` are p(d|x,y), parallel to the passages; the rest of it is `message`."""

    message: Message
    finish_reason: str
    model: str
    confidence: float
    posteriors: Sequence[float]
    provenance: Message = None
    timings: Mapping[str, float] = field(default_factory=dict)


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


class Generator(Protocol):
    """Decodes an answer from passages."""

    async def generate(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Generation:
        """At most `timeout` seconds; raises a RagError."""

    def stream(
        self, question: Question, retrieval: Retrieval, *, timeout: float | None
    ) -> AsyncGenerator[Delta | Generation, None]:
        """Deltas, then once the generation that replaces them."""
