"""Which requests run. Pure: no clock, no thread, no tensor.

A job waits, runs, and leaves exactly once: finished, cancelled or late. Among those that wait, the earliest deadline
goes first, then the order of arrival. A job that does not fit yet holds back the ones behind it, so that none starves.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may run at once, and how much is done between two steps.

    `max_prefill_tokens` 0 leaves it to the engine, which knows the device.
    """

    max_running_requests: int = 32
    max_decoder_rows: int = 2048
    max_prefill_tokens: int = 0
    max_scoring_tokens: int = 512


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One request.

    `num_input_tokens` are those that must be encoded; `deadline_at` is in seconds of the caller's clock; `is_cancelled`
    is set by whoever gives it up.
    """

    num_decoder_rows: int
    num_input_tokens: int = 0
    deadline_at: float = math.inf
    is_cancelled: bool = False
    key: tuple[float, int] = field(default=(0.0, 0), repr=False)


@dataclass(frozen=True, slots=True)
class Swept:
    """Jobs that left without a result, waiting or running."""

    cancelled: Sequence[Job]
    late: Sequence[Job]


class Scheduler:
    """The waiting and the running jobs."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._order = itertools.count()
        self._waiting: list[tuple[tuple[float, int], Job]] = []
        self._running: list[Job] = []

    @property
    def running(self) -> Sequence[Job]:
        """Jobs that hold decoder rows, in the order they were let in."""
        return tuple(self._running)

    @property
    def num_waiting(self) -> int:
        """Jobs not yet let in, cancelled ones included until the next sweep."""
        return len(self._waiting)

    @property
    def num_decoder_rows(self) -> int:
        """Rows held by the running jobs."""
        return sum(job.num_decoder_rows for job in self._running)

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def add(self, job: Job) -> None:
        """Queues a job."""
        job.key = (job.deadline_at, next(self._order))
        heapq.heappush(self._waiting, (job.key, job))

    def sweep(self, now: float) -> Swept:
        """Removes cancelled and late jobs, waiting or running."""
        everyone = [job for _, job in self._waiting] + self._running
        cancelled = [job for job in everyone if job.is_cancelled]
        late = [job for job in everyone if not job.is_cancelled and job.deadline_at <= now]
        if cancelled or late:
            gone = {id(job) for job in (*cancelled, *late)}
            self._waiting = [entry for entry in self._waiting if id(entry[1]) not in gone]
            heapq.heapify(self._waiting)
            self._running = [job for job in self._running if id(job) not in gone]
        return Swept(cancelled, late)

    def ahead_of(self, deadline_at: float) -> list[Job]:
        """The waiting jobs that go before one that arrives now."""
        return [job for key, job in self._waiting if key[0] <= deadline_at and not job.is_cancelled]

    def admit(self, *, num_unread_tokens: int = 0) -> list[Job]:
        """Moves the jobs that go next from waiting to running.

        A job of too many rows for the budget runs alone; one of too many tokens is let in when no other is being read.

        Args:
            num_unread_tokens: What the running jobs have still to encode.
        """
        admitted: list[Job] = []
        rows, tokens = self.num_decoder_rows, num_unread_tokens
        while self._waiting:
            job = self._waiting[0][1]
            rows += job.num_decoder_rows
            is_full = len(self._running) >= self._budget.max_running_requests or rows > self._budget.max_decoder_rows
            if is_full and self._running:
                break
            if job.num_input_tokens and tokens and tokens + job.num_input_tokens > self._budget.max_prefill_tokens:
                break
            tokens += job.num_input_tokens
            heapq.heappop(self._waiting)
            self._running.append(job)
            admitted.append(job)
        return admitted

    def remove(self, job: Job) -> None:
        """Frees the rows of a job that has finished or failed."""
        self._running.remove(job)

    def clear(self) -> list[Job]:
        """Removes and returns every job."""
        everyone = [job for _, job in self._waiting] + self._running
        self._waiting, self._running = [], []
        return everyone
