"""One question's way through the stages. Tasks call them here; time and the telling of events are settled here."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gateway.answers import Event, Made, StageEnded
from gateway.prompts import Checkpoint
from gateway.stages import Delta, Generation, Generator, Question, Retrieval, Retriever
from serving import errors
from serving.deadline import Deadline, current_deadline

_T = TypeVar("_T")

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


class Run:
    """The stages as one question meets them: under its deadline, on its clock; their ends are told as events."""

    def __init__(
        self, retriever: Retriever, generator: Generator, budget: Budget, tell: Callable[[Event], None]
    ) -> None:
        """Starts the clock.

        Args:
            retriever: Finds.
            generator: Decodes.
            budget: How time is shared out.
            tell: Is told each event in its order.
        """
        self._retriever, self._generator, self._budget = retriever, generator, budget
        self.tell = tell
        self._deadline, self._started = budget.deadline(), time.perf_counter()
        self._seconds: dict[str, float] = {}

    def elapsed(self) -> float:
        """Seconds since the question was accepted."""
        return time.perf_counter() - self._started

    async def checkpoint(self) -> Checkpoint:
        """What the generator's checkpoint says of tasks."""
        return await self._generator.checkpoint(timeout=self.retrieve_timeout())

    async def rewrite(self, prompt: str) -> str:
        """What the generator makes of a text without passages."""
        with self._stage("rewrite"):
            return await self._generator.rewrite(prompt, timeout=self.retrieve_timeout())

    async def sources(self, question: Question, names: Sequence[str], *, max_passages: int) -> Sequence[Retrieval]:
        """At most so many passages of each source, in its order."""
        with self._stage("fetch"):
            timeout = self.retrieve_timeout()
            return await _all(
                [self._retriever.source(question, name, max_passages=max_passages, timeout=timeout) for name in names]
            )

    async def retrieve(self, question: Question, queries: Sequence[str]) -> Sequence[Retrieval]:
        """What each query finds; reranked for itself, where the question says so."""
        with self._stage("retrieve"):
            found = await self._retriever.retrieve(question, queries, timeout=self.retrieve_timeout())
        if question.rerank is None or not any(each.passages for each in found):
            return found
        with self._stage("rerank"):
            return await _all([self._rerank(question, query, each) for query, each in zip(queries, found, strict=True)])

    async def generate(self, question: Question, retrieval: Retrieval) -> Generation:
        """Decodes an answer, its tokens told as they come where the question streams them; the best candidate."""
        with self._stage("generate"):
            generation = await self._generate(question, retrieval)
        if question.ranking is None:
            return generation
        with self._stage("rank"):
            return await self._retriever.rank(question, retrieval, generation, timeout=self._generate_timeout())

    async def generate_sections(self, asked: Sequence[tuple[str, Question, Retrieval]]) -> Sequence[Generation]:
        """Decodes several answers side by side; the end of each is told under its heading.

        Raises:
            serving.errors.Deadline: Says how many were written in time.
        """
        written: list[str] = []

        async def write(heading: str, question: Question, retrieval: Retrieval) -> Generation:
            started = time.perf_counter()
            generation = await self._generator.generate(question, retrieval, timeout=self._generate_timeout())
            written.append(heading)
            self.tell(StageEnded("generate", time.perf_counter() - started, heading))
            return generation

        with self._stage("generate"):
            try:
                return await _all([write(*each) for each in asked])
            except errors.Deadline as error:
                told = f"{len(written)} of {len(asked)} sections were written in time: {error.message}"
                raise errors.Deadline(told, reason=error.reason) from error

    async def choose(self, question: Question, retrieval: Retrieval, labels: Sequence[str]) -> Generation:
        """The most probable of the labels."""
        with self._stage("generate"):
            return await self._generator.choose(question, retrieval, labels, timeout=self._generate_timeout())

    def timings(self, made: Made) -> dict[str, float]:
        """Seconds by stage: the backends' own, those of the same name added up, then the gateway's view of them."""
        timings: dict[str, float] = {}
        parts = () if made.from_cache else (made.retrieval.timings, *(each.timings for each in made.generations))
        for part in parts:
            for name, seconds in part.items():
                timings[name] = timings.get(name, 0.0) + seconds
        return timings | self._seconds | {"total": self.elapsed()}

    def retrieve_timeout(self) -> float | None:
        """Seconds for what comes before the decoding.

        Raises:
            serving.errors.Deadline: None are left.
        """
        return self._timeout(self._budget.generate_reserve + self._budget.reply_reserve)

    def _generate_timeout(self) -> float | None:
        return self._timeout(self._budget.reply_reserve)

    def _timeout(self, reserve_seconds: float) -> float | None:
        reserve = min(reserve_seconds, _MAX_RESERVE_RATIO * self._deadline.remaining())
        return self._deadline.timeout(reserve_seconds=reserve)

    async def _rerank(self, question: Question, query: str, found: Retrieval) -> Retrieval:
        if not found.passages:
            return found
        return await self._generator.rerank(replace(question, text=query), found, timeout=self.retrieve_timeout())

    async def _generate(self, question: Question, retrieval: Retrieval) -> Generation:
        timeout = self._generate_timeout()
        if not question.streams_tokens:
            return await self._generator.generate(question, retrieval, timeout=timeout)
        generation = None
        parts: AsyncGenerator[Delta | Generation, None] = self._generator.stream(question, retrieval, timeout=timeout)
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Generation):
                    generation = part
                else:
                    self.tell(part)
        if generation is None:
            raise errors.RagError("the generator ended its stream without a generation")
        return generation

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Times one stage and tells its end."""
        started = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - started
        self.tell(StageEnded(name, self._seconds[name]))


async def _all(calls: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """What all of them return; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
