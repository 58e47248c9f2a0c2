"""The engine: one thread that owns the model and runs every request's program on it, step by step.

Requests of any kind join and leave at every step; all running programs share one model step. Callers live in an event
loop and get their result, or their error, exactly once. A caller that goes away frees its rows at the next step.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch

from generator_service.decoding.program import Program
from generator_service.entry import Entry, Finished, OnTokens, Result
from generator_service.models.base import Seq2SeqModel
from generator_service.scheduler import Budget, Job, Scheduler
from serving.errors import Deadline, NotReady
from serving.logs import get_logger

log = get_logger(__name__)


class EngineObserver(Protocol):
    """Told, in the model's thread, what the engine does. Must be quick and must not raise."""

    def on_prefill(self, *, num_rows: int, num_tokens: int, seconds: float, queue_seconds: Sequence[float]) -> None:
        """Some requests were encoded together."""
        ...

    def on_step(self, *, num_requests: int, num_rows: int, seconds: float) -> None:
        """All running requests took one step."""
        ...

    def on_dropped(self, *, reason: str, count: int) -> None:
        """Requests left without a result: "cancelled", "deadline" or "failed"."""
        ...

    def on_state(self, *, num_waiting: int, num_running: int, num_rows: int) -> None:
        """What waits and runs after a round."""
        ...


class Engine:
    """Runs programs on a model. Create, `start`, `run` from any event loop, `stop`.

    `last_success_at` is the moment (monotonic clock) of the model's last good prefill or step.
    """

    def __init__(self, model: Seq2SeqModel, budget: Budget, observer: EngineObserver) -> None:
        self._model = model
        self._scheduler = Scheduler(budget)
        self._observer = observer
        self._changed = threading.Condition()
        self._arrived: deque[Entry] = deque()
        self._is_stopping = False
        self.last_success_at = -math.inf
        self._thread = threading.Thread(target=self._own, name="model", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._thread.is_alive() and not self._is_stopping

    def start(self) -> None:
        """Starts the model's thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after its present step; whoever still waits gets NotReady."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def run(
        self, program: Program[Result], *, deadline_at: float, on_tokens: OnTokens | None = None
    ) -> Finished[Result]:
        """Runs a program to its end. Cancelling the caller frees its rows at the next step.

        Args:
            program: Not started yet.
            deadline_at: Moment of the monotonic clock after which the answer is of no use; infinity is never.
            on_tokens: Called in the caller's loop with tokens that are certain, as they come.

        Raises:
            NotReady: The engine does not run, or stops before the program has ended.
            Deadline: The deadline passed.
            Exception: What the model or the program raised.
        """
        entry = Entry(
            num_input_tokens=sum(len(row) for row in program.rows),
            num_decoder_rows=program.num_decoder_rows,
            deadline_at=deadline_at,
            program=program,
            future=asyncio.get_running_loop().create_future(),
            on_tokens=on_tokens,
            accepted_at=time.monotonic(),
        )
        with self._changed:
            if not self.is_alive:
                raise NotReady("the generator's engine does not run")
            self._arrived.append(entry)
            self._changed.notify()
        try:
            return await entry.future
        finally:
            entry.is_cancelled = not entry.future.done() or entry.future.cancelled()

    def _own(self) -> None:
        """The thread: rounds until told to stop. Whatever ends it answers everyone."""
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._round()
        except BaseException:
            log.exception("the model's thread died")
            raise
        finally:
            with self._changed:
                self._is_stopping = True
                entries = [*self._scheduler.clear(), *self._arrived]
                self._arrived.clear()
            for entry in entries:
                _entry(entry).deliver(NotReady("the generator's engine stopped"))

    def _wait_for_work(self) -> bool:
        """Sleeps while there is nothing to do; False when told to stop."""
        with self._changed:
            while self._scheduler.is_idle and not self._arrived and not self._is_stopping:
                self._changed.wait()
            while self._arrived:
                self._scheduler.add(self._arrived.popleft())
            return not self._is_stopping

    def _round(self) -> None:
        """Drops who left, lets in who fits, and takes one step for all."""
        swept = self._scheduler.sweep(time.monotonic())
        for late in swept.late:
            _entry(late).deliver(Deadline("the deadline passed before the answer was ready"))
        self._count_dropped("cancelled", len(swept.cancelled))
        self._count_dropped("deadline", len(swept.late))
        admitted = [_entry(job) for job in self._scheduler.admit()]
        if admitted:
            self._prefill(admitted)
        self._finish_done()
        running = [_entry(job) for job in self._scheduler.running]
        if running:
            self._step(running)
            self._finish_done()
        self._observer.on_state(
            num_waiting=self._scheduler.num_waiting,
            num_running=len(self._scheduler.running),
            num_rows=self._scheduler.num_decoder_rows,
        )

    def _prefill(self, entries: Sequence[Entry]) -> None:
        """Encodes the rows of several requests together and opens their states."""
        started = time.monotonic()
        rows = [row for entry in entries for row in entry.program.rows]
        try:
            encoded = iter(self._model.encode(rows))
        except Exception as error:
            self._fail(entries, error)
            return
        for entry in entries:
            entry.started_at = started
            program = entry.program
            try:
                program.start(self._model, [next(encoded) for _ in program.rows])
            except Exception as error:
                self._fail([entry], error)
            entry.encoded_at = time.monotonic()
        self.last_success_at = time.monotonic()
        self._observer.on_prefill(
            num_rows=len(rows),
            num_tokens=sum(len(row) for row in rows),
            seconds=self.last_success_at - started,
            queue_seconds=[started - entry.accepted_at for entry in entries],
        )

    def _step(self, entries: Sequence[Entry]) -> None:
        """One model step for all, then each program takes its logits."""
        started = time.monotonic()
        items = [entry.program.items() for entry in entries]
        try:
            logits = iter(self._model.step([item for group in items for item in group]))
        except Exception as error:
            self._fail(entries, error)
            return
        for entry, group in zip(entries, items, strict=True):
            mine = [next(logits) for _ in group]
            try:
                tokens = entry.program.advance(mine)
            except Exception as error:
                self._fail([entry], error)
                continue
            if entry.first_token_at is None:
                entry.first_token_at = time.monotonic()
            entry.emit(tokens)
        self.last_success_at = time.monotonic()
        num_rows = sum(entry.num_decoder_rows for entry in entries)
        self._observer.on_step(num_requests=len(entries), num_rows=num_rows, seconds=self.last_success_at - started)

    def _finish_done(self) -> None:
        """Answers the programs that are done."""
        for entry in [_entry(job) for job in self._scheduler.running]:
            program = entry.program
            if not program.is_done:
                continue
            try:
                result = program.finish()
            except Exception as error:
                self._fail([entry], error)
                continue
            self._scheduler.remove(entry)
            entry.deliver(entry.finished(result))

    def _fail(self, entries: Sequence[Entry], error: Exception) -> None:
        for entry in entries:
            self._scheduler.remove(entry)
            entry.deliver(error)
        self._count_dropped("failed", len(entries))

    def _count_dropped(self, reason: str, count: int) -> None:
        if count:
            self._observer.on_dropped(reason=reason, count=count)


def _entry(job: Job) -> Entry:
    assert isinstance(job, Entry)
    return job
