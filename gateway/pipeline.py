"""Read this first: how a question becomes a cited answer, under one deadline.

    question ─► its task: retrieve (─► rerank) ─► (none? NO_PASSAGES) ─► generate (─► rank the candidates)
                                              ─► cite by posterior ─► (unsure? ABSTAINED) ─► answer

Here is what all tasks have in common: admission, the answer cache, events, citations, thresholds. What each retrieves
and makes of it is its module in `tasks/`; the plainest is `question_answering`. A task calls the stages through `Run`,
which knows deadline and clock. None of them knows gRPC or the contract: what the stages say beyond that travels through
unread. What passes between the stages is in `stages.py` and `answers.py`; who carries it is in `clients.py`. Where an
answer cache is configured, an equal question goes from its first step to its last.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from gateway.answers import ABSTAINED, NO_PASSAGES, RANKED, Answer, Citation, Event, Made
from gateway.cache import AnswerCache
from gateway.run import Budget, Run
from gateway.stages import Delta, Generator, Question, Retrieval, Retriever, Task
from gateway.tasks import (
    dialogue,
    document_generation,
    fact_verification,
    question_answering,
    recommendation,
    summarization,
    translation,
)
from serving.admission import Admission
from serving.errors import RagError

_TASKS: Mapping[Task, Callable[[Question, Run], Coroutine[Any, Any, Made]]] = {
    Task.QUESTION_ANSWERING: question_answering.make,
    Task.DIALOGUE: dialogue.make,
    Task.SUMMARIZATION: summarization.make,
    Task.DOCUMENT_GENERATION: document_generation.make,
    Task.RECOMMENDATION: recommendation.make,
    Task.TRANSLATION: translation.make,
    Task.FACT_VERIFICATION: fact_verification.make,
}
_CALIBRATED = (Task.QUESTION_ANSWERING, Task.DIALOGUE)  #: Whose confidence the default thresholds are about.


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
            told: asyncio.Queue[Event | None] = asyncio.Queue()
            run = Run(self._retriever, self._generator, self._budget, told.put_nowait)
            made = None
            if self._cache is not None:
                made = await self._cache.recall(question, timeout=run.retrieve_timeout())
            if made is not None:
                if question.needs_passages:
                    yield made.retrieval
            else:
                making = asyncio.ensure_future(_TASKS[question.task](question, run))
                async with aclosing(self._watch(making, told, run)) as events:
                    async for event in events:
                        yield event
                made = making.result()
                if self._cache is not None:
                    self._cache.remember(question, made)
            answer = self._finish(question, made, run)
            self._observer.answered(answer)
            yield answer

    async def _watch(
        self, making: asyncio.Future[Made], told: asyncio.Queue[Event | None], run: Run
    ) -> AsyncGenerator[Event, None]:
        """The events of an answer in the making, until it is made or has failed; left early, it is given up."""
        making.add_done_callback(lambda _: told.put_nowait(None))
        has_token = False
        try:
            while (event := await told.get()) is not None:
                if isinstance(event, Delta) and not has_token:
                    has_token = True
                    self._observer.first_token(run.elapsed())
                yield event
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    def _finish(self, question: Question, made: Made, run: Run) -> Answer:
        if not made.is_answered:
            finish_reason = NO_PASSAGES
        elif made.confidence < self._threshold(question, made):
            finish_reason = ABSTAINED
        else:
            finish_reason = made.generation.finish_reason if made.generation is not None else RANKED
        return Answer(
            answer_id=self._new_id(),
            finish_reason=finish_reason,
            citations=cite(made.retrieval, made.posteriors) if made.is_answered else (),
            made=made,
            timings=run.timings(made),
        )

    def _threshold(self, question: Question, made: Made) -> float:
        if question.min_confidence is not None:
            return question.min_confidence
        if question.task not in _CALIBRATED or made.generation is None:
            return 0.0
        return made.generation.min_confidence if self._min_confidence is None else self._min_confidence


def cite(retrieval: Retrieval, posteriors: Sequence[float]) -> tuple[Citation, ...]:
    """The passages by posterior p(d|x,y), highest first; equal ones stay in retrieval order.

    Raises:
        RagError: The generator did not return one posterior for each passage.
    """
    if len(posteriors) != len(retrieval.passages):
        raise RagError(f"the generator returned {len(posteriors)} posteriors for {len(retrieval.passages)} passages")
    citations = [
        Citation(index, math.exp(log_prior), posterior)
        for index, (log_prior, posterior) in enumerate(zip(retrieval.log_priors, posteriors, strict=True))
    ]
    return tuple(sorted(citations, key=lambda citation: -citation.posterior))
