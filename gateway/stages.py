"""What a question is, what passes between the stages, and what each stage can be asked. Plain values.

What becomes of it is in `answers.py`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from gateway.prompts import Checkpoint, Turn
from gateway.ranking import CandidateWeights, GeneratorRerank, Vectors

Message: TypeAlias = Any  #: A message of the contract, carried and never looked into.


class Task(StrEnum):
    """What an answer is for: the contract's names."""

    QUESTION_ANSWERING = "question_answering"
    DIALOGUE = "dialogue"
    SUMMARIZATION = "summarization"
    DOCUMENT_GENERATION = "document_generation"
    RECOMMENDATION = "recommendation"
    TRANSLATION = "translation"
    FACT_VERIFICATION = "fact_verification"


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a question says to its task; each task reads its own.

    Attributes:
        rewrites: DIALOGUE: whether the question is rewritten; None where the checkpoint decides.
        turn_discount: Weight of each turn beside that of the turn after it.
        num_turns: Earlier turns of the user that count.
        top_k: DIALOGUE: passages of the mixture that are read, at least; RECOMMENDATION: items.
        labels: FACT_VERIFICATION: the answers to choose from; none are the checkpoint's.
        source: SUMMARIZATION: what is summarised; "" is what is found.
        max_sections: DOCUMENT_GENERATION.
        liked_sources: RECOMMENDATION, beside the history.
        item_field: RECOMMENDATION: the metadata field that names the item; "" is the source.
        translation_field: TRANSLATION: the metadata field that holds the translation; "" for every other task.
    """

    rewrites: bool | None = None
    turn_discount: float = 1.0
    num_turns: int = 0
    top_k: int = 0
    labels: Sequence[str] = ()
    source: str = ""
    max_sections: int = 0
    liked_sources: Sequence[str] = ()
    item_field: str = ""
    translation_field: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that passed validation.

    Attributes:
        text: What is asked; blank only where its task can do without.
        options: AnswerOptions, for the stages, with the defaults of the call's kind filled in.
        min_confidence: The caller's threshold, None to take the gateway's, or the generator's.
        needs_passages: False for a closed-book answer: nothing is retrieved.
        streams_tokens: Whether the decoding model can send its tokens as they come.
        rerank: How the hits are reranked before generation, if at all.
        ranking: How candidate answers are ranked, if several are made.
        cache_key: Equal for questions of equal answers, `min_confidence` left aside; None where answers are random.
        task: What the answer is for.
        task_options: Its own options.
        history: Earlier turns, the oldest first.
        prompt: What the generator reads in the text's place, where its checkpoint was taught the task in other words.
        max_new_tokens: Where the options name none; 0 leaves it to the generator.
    """

    text: str
    options: Message
    min_confidence: float | None = None
    needs_passages: bool = True
    streams_tokens: bool = False
    rerank: GeneratorRerank | None = None
    ranking: CandidateWeights | None = None
    cache_key: bytes | None = None
    task: Task = Task.QUESTION_ANSWERING
    task_options: TaskOptions = TaskOptions()
    history: Sequence[Turn] = ()
    prompt: str = ""
    max_new_tokens: int = 0

    @property
    def needs_generator(self) -> bool:
        """Whether its answer depends on the generator."""
        return self.task is not Task.RECOMMENDATION


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Passages as their encoder sees them: `vectors` (N, D), and what comparing them with a text's takes."""

    vectors: Vectors
    temperature: float
    is_cosine: bool
    encoder_digest: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What tells passages apart and together. `item` is the value of the question's `item_field`."""

    id: str
    title: str = ""
    source: str = ""
    text: str = ""
    item: str = ""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found, best first.

    Attributes:
        passages: The hits. What they say of their rank and prior counts only until they are mixed or chosen from.
        log_priors: log p(d|x), parallel to `passages`.
        facts: Parallel to `passages`.
        space: Only for a question that ranks candidates.
        temperature: tau of the log priors; 0 where the retriever does not say.
        state: Names what was searched; empty where the retriever does not say.
        num_bytes: Its size on the wire.
    """

    passages: Sequence[Message] = ()
    log_priors: Sequence[float] = ()
    facts: Sequence[Facts] = ()
    space: Space | None = None
    temperature: float = 0.0
    state: str = ""
    num_bytes: int = 0
    provenance: Message = None
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Label:
    """One of the answers to choose from: p(label|x) over all labels, and its natural log before that."""

    text: str
    probability: float
    log_probability: float


@dataclass(frozen=True, slots=True)
class Generation:
    """What was decoded; the rest of it is `message`.

    Attributes:
        text: The answer.
        posteriors: p(d|x,y), parallel to the passages.
        min_confidence: What the generator's checkpoint advises as a threshold; 0 is none.
        digest: Of the generator; empty where it does not say.
        num_bytes: Its size on the wire.
        chosen: The answer's place among the candidates as generated; None where none were ranked.
        labels: Where the answer is one of them; most probable first.
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
    labels: Sequence[Label] = ()
    text: str = ""
    provenance: Message = None
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of an answer under way."""

    message: Message


class Retriever(Protocol):
    """Finds the passages for a question."""

    async def retrieve(
        self, question: Question, queries: Sequence[str], *, timeout: float | None
    ) -> Sequence[Retrieval]:
        """What each query finds, under the question's options. At most `timeout` seconds; raises a RagError."""

    async def source(self, question: Question, name: str, *, max_passages: int, timeout: float | None) -> Retrieval:
        """At most so many passages of a source, in its order and all as probable. Raises a RagError."""

    async def rank(
        self, question: Question, retrieval: Retrieval, generation: Generation, *, timeout: float | None
    ) -> Generation:
        """Lets the encoder choose among the generation's candidates. Raises a RagError."""

    async def state(self, question: Question, *, timeout: float | None) -> str:
        """The state that the question's passages would come from now; cheap. Raises a RagError."""


class Generator(Protocol):
    """Decodes an answer from passages."""

    async def rerank(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Retrieval:
        """The best passages by what the generator says of them, as `question.rerank` says. Raises a RagError."""

    async def checkpoint(self, *, timeout: float | None) -> Checkpoint:
        """What the checkpoint that answers now says of tasks; cheap. Raises a RagError."""

    async def rewrite(self, prompt: str, *, timeout: float | None) -> str:
        """What the generator makes of a text without passages. Raises a RagError."""

    async def choose(
        self, question: Question, retrieval: Retrieval, labels: Sequence[str], *, timeout: float | None
    ) -> Generation:
        """The most probable of the labels given the passages. Raises a RagError."""

    async def generate(self, question: Question, retrieval: Retrieval, *, timeout: float | None) -> Generation:
        """At most `timeout` seconds; raises a RagError."""

    def stream(
        self, question: Question, retrieval: Retrieval, *, timeout: float | None
    ) -> AsyncGenerator[Delta | Generation, None]:
        """Deltas, then once the generation that replaces them."""
