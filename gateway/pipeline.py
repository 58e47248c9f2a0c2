"""Read this first: how a question becomes a cited answer, under one deadline.

    question ─► retrieve (─► rerank) ─► (none? NO_PASSAGES) ─► generate (─► rank the candidates)
                                                            ─► cite by posterior ─► (unsure? ABSTAINED) ─► answer

The pipeline knows stages, time and citations. It knows neither gRPC nor the contract: what the stages say beyond that
travels through it unread. What passes between the stages is in `stages.py`; who carries it is in `clients.py`. Where an
answer cache is configured, an equal question goes from its first step to its last.
"""

import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from gateway.cache import AnswerCache
from gateway.stages import (
    ABSTAINED,
    NO_PASSAGES,
    Answer,
    Citation,
    Delta,
    Event,
    Generation,
    Generator,
    Made,
    Question,
    Retrieval,
    Retriever,
    StageEnded,
)
from serving.admission import Admission
from serving.deadline import Deadline, current_deadline
from serving.errors import RagError

# However short the deadline, a stage leaves at most this share of what remains to the stages after it.
_MAX_RESERVE_RATIO = 0.25


@dataclass(frozen=True, slots=True)
class Budget:
    """How the time of one question is shared out, in seconds.

    Attributes:
        default_timeout: For callers that set no deadline.
        generate_reserve: Retrieval must end this long before the deadline.
        reply_reserve: Generation must end this long before the deadline.
    """

    default_timeout: float = 60.0
    generate_reserve: float = 0.5
    reply_reserve: float = 0.02

    def deadline(self) -> Deadline:
        """The caller's deadline, or the default one."""
        given = current_deadline()
        return Deadline.after(self.default_timeout) if math.isinf(given.at) else given


class Observer(Protocol):
    """Is told what the operator wants to know."""

    def answered(self, answer: Answer) -> None:
        """An answer is complete."""

    def first_token(self, seconds: float) -> None:
        """The first delta of a stream came this long after the question."""


class Pipeline:
    """Answers questions. Keeps nothing between them but the room that admission measures."""

    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        *,
        observer: Observer,
        admission: Admission,
        budget: Budget,
        min_confidence: float | None = None,
        cache: AnswerCache | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Puts the stages together.

        Args:
            retriever: First stage.
            generator: Second stage.
            observer: Is told of each answer.
            admission: How many questions may be inside at once.
            budget: How time is shared out.
            min_confidence: Answers under it are ABSTAINED, unless the question says otherwise; 0 is never, None is
                what the generator advises.
            cache: Answers of earlier questions; None keeps none.
            new_id: Makes answer ids.
        """
        self._retriever, self._generator = retriever, generator
        self._observer, self._admission = observer, admission
        self._budget, self._min_confidence, self._new_id = budget, min_confidence, new_id
        self._cache = cache

    async def answer(self, question: Question) -> Answer:
        """The whole answer at once.

        Raises:
            serving.errors.RagError: Any of the closed list; a stage's refusal keeps its meaning.
        """
        async with aclosing(self.stream(question)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    return event
        raise RagError("the pipeline ended without an answer")

    async def stream(self, question: Question) -> AsyncGenerator[Event, None]:
        """The answer as it comes: stage ends, what was retrieved, deltas, and once, last, the answer itself.

        Raises:
            serving.errors.RagError: As `answer`.
        """
        with self._admission.admit():
            deadline, clock = self._budget.deadline(), _Clock()
            made = None
            if self._cache is not None:
                made = await self._cache.recall(question, timeout=self._retrieve_timeout(deadline))
            events = self._make(question, deadline, clock) if made is None else _replay(question, made)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Made):
                        answer = self._finish(question, event, clock)
                        self._observer.answered(answer)
                        yield answer
                    else:
                        yield event

    async def _make(
        self, question: Question, deadline: Deadline, clock: "_Clock"
    ) -> AsyncGenerator[StageEnded | Retrieval | Delta | Made, None]:
        """The events of the stages, and last what they made."""
        retrieval = Retrieval()
        if question.needs_passages:
            with clock.stage("retrieve"):
                retrieval = await self._retriever.retrieve(question, timeout=self._retrieve_timeout(deadline))
            yield clock.ended("retrieve")
            if question.rerank is not None and retrieval.passages:
                with clock.stage("rerank"):
                    timeout = self._retrieve_timeout(deadline)
                    retrieval = await self._generator.rerank(question, retrieval, timeout=timeout)
                yield clock.ended("rerank")
            yield retrieval
            if not retrieval.passages:
                yield Made(retrieval, None)
                return
        generation = None
        with clock.stage("generate"):
            async with aclosing(self._generate(question, retrieval, deadline)) as parts:
                async for part in parts:
                    if isinstance(part, Generation):
                        generation = part
                    else:
                        self._count_first_token(clock)
                        yield part
        yield clock.ended("generate")
        if generation is None:
            raise RagError("the generator ended its stream without a generation")
        if question.ranking is not None:
            with clock.stage("rank"):
                timeout = _timeout(deadline, self._budget.reply_reserve)
                generation = await self._retriever.rank(question, retrieval, generation, timeout=timeout)
            yield clock.ended("rank")
        if self._cache is not None:
            self._cache.remember(question, retrieval, generation)
        yield Made(retrieval, generation)

    async def _generate(
        self, question: Question, retrieval: Retrieval, deadline: Deadline
    ) -> AsyncGenerator[Delta | Generation, None]:
        timeout = _timeout(deadline, self._budget.reply_reserve)
        if not question.streams_tokens:
            yield await self._generator.generate(question, retrieval, timeout=timeout)
            return
        async with aclosing(self._generator.stream(question, retrieval, timeout=timeout)) as parts:
            async for part in parts:
                yield part

    def _finish(self, question: Question, made: Made, clock: "_Clock") -> Answer:
        retrieval, generation = made.retrieval, made.generation
        if generation is None:
            finish_reason = NO_PASSAGES
        elif generation.confidence < self._threshold(question, generation):
            finish_reason = ABSTAINED
        else:
            finish_reason = generation.finish_reason
        return Answer(
            answer_id=self._new_id(),
            finish_reason=finish_reason,
            citations=cite(retrieval, generation) if generation is not None else (),
            retrieval=retrieval,
            generation=generation,
            timings=clock.total(retrieval, generation),
            from_cache=made.from_cache,
        )

    def _threshold(self, question: Question, generation: Generation) -> float:
        if question.min_confidence is not None:
            return question.min_confidence
        return generation.min_confidence if self._min_confidence is None else self._min_confidence

    def _retrieve_timeout(self, deadline: Deadline) -> float | None:
        return _timeout(deadline, self._budget.generate_reserve + self._budget.reply_reserve)

    def _count_first_token(self, clock: "_Clock") -> None:
        if not clock.has_first_token:
            clock.has_first_token = True
            self._observer.first_token(clock.elapsed())


async def _replay(question: Question, made: Made) -> AsyncGenerator[Retrieval | Made, None]:
    """The events of an answer that was made before."""
    if question.needs_passages:
        yield made.retrieval
    yield made


def cite(retrieval: Retrieval, generation: Generation) -> tuple[Citation, ...]:
    """The passages by posterior p(d|x,y), highest first; equal ones stay in retrieval order.

    Raises:
        RagError: The generator did not return one posterior for each passage.
    """
    if len(generation.posteriors) != len(retrieval.passages):
        raise RagError(
            f"the generator returned {len(generation.posteriors)} posteriors for {len(retrieval.passages)} passages"
        )
    citations = [
        Citation(index, math.exp(log_prior), posterior)
        for index, (log_prior, posterior) in enumerate(zip(retrieval.log_priors, generation.posteriors, strict=True))
    ]
    return tuple(sorted(citations, key=lambda citation: -citation.posterior))


def _timeout(deadline: Deadline, reserve_seconds: float) -> float | None:
    return deadline.timeout(reserve_seconds=min(reserve_seconds, _MAX_RESERVE_RATIO * deadline.remaining()))


class _Clock:
    """Times the stages of one question."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.has_first_token = False

    def elapsed(self) -> float:
        """Seconds since the question was accepted."""
        return time.perf_counter() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def ended(self, name: str) -> StageEnded:
        """The event of a stage that was timed."""
        return StageEnded(name, self.seconds[name])

    def total(self, retrieval: Retrieval, generation: Generation | None) -> dict[str, float]:
        """Seconds by stage: the backends' own, those of the same name added up, then the gateway's view of them."""
        timings: dict[str, float] = {}
        for part in (retrieval.timings, generation.timings if generation is not None else {}):
            for name, seconds in part.items():
                timings[name] = timings.get(name, 0.0) + seconds
        return timings | self.seconds | {"total": self.elapsed()}
