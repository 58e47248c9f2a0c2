"""The engine's rounds: what the model's thread does, one bounded piece of work after the other.

A round encodes some rows of new requests, takes one step for all that are decoding, and one slice of scoring, so that
none holds the others up. Requests of any kind join and leave at every round. Knows no thread: one caller at a time.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from generator_service.encoder_cache import EncoderCache
from generator_service.entry import Entry
from generator_service.forecast import Ahead, Pace
from generator_service.models.base import Seq2SeqModel, StepItem
from generator_service.row_encoder import EncoderWork, Row, RowEncoder
from generator_service.scheduler import Budget, Job, Scheduler
from serving.errors import Deadline, RagError


class EngineObserver(Protocol):
    """Told, in the model's thread, what the engine does. Must be quick and must not raise."""

    def on_prefill(self, work: EncoderWork, *, seconds: float, queue_seconds: Sequence[float]) -> None:
        """Some rows were encoded together; `queue_seconds` are those of the requests whose first rows they were."""
        ...

    def on_step(self, *, num_requests: int, num_rows: int, seconds: float) -> None:
        """All requests that are decoding took one step."""
        ...

    def on_slice(self, *, seconds: float) -> None:
        """A request was scored, or a slice of it."""
        ...

    def on_refused(self, *, reason: str) -> None:
        """A request was refused on arrival: its deadline cannot be met."""
        ...

    def on_dropped(self, *, reason: str, count: int) -> None:
        """Requests left without a result: "cancelled", "deadline" or "failed"."""
        ...

    def on_state(self, *, num_waiting: int, num_running: int, num_rows: int) -> None:
        """What waits and runs after a round."""
        ...


class Rounds:
    """The requests inside and the model that they share.

    `last_success_at` is the moment (monotonic clock) of the model's last good prefill, step or slice.
    """

    def __init__(
        self, model: Seq2SeqModel, budget: Budget, observer: EngineObserver, *, encoder_cache_bytes: int
    ) -> None:
        self._model = model
        self._encoder = RowEncoder(model, EncoderCache(encoder_cache_bytes, model.spec.digest))
        self._budget = replace(budget, max_prefill_tokens=budget.max_prefill_tokens or _prefill_tokens(model))
        self._scheduler = Scheduler(self._budget)
        self._pace = Pace()
        self._observer = observer
        self._turn = 0
        self.last_success_at = -math.inf

    @property
    def is_idle(self) -> bool:
        """Nobody waits and nobody runs."""
        return self._scheduler.is_idle

    def receive(self, entry: Entry) -> None:
        """Queues a request, unless its deadline cannot be met."""
        try:
            entry.rows = self._encoder.rows(entry.program.rows)
        except Exception as error:
            entry.deliver(error)
            self._count_dropped("failed", 1)
            return
        entry.num_input_tokens = self._encoder.cost(entry.rows)
        refusal = self._refusal(entry, time.monotonic())
        if refusal is None:
            self._scheduler.add(entry)
        else:
            entry.deliver(refusal)
            self._observer.on_refused(reason=refusal.reason)

    def clear(self) -> list[Entry]:
        """Removes and returns every request."""
        return [_entry(job) for job in self._scheduler.clear()]

    def _refusal(self, entry: Entry, now: float) -> RagError | None:
        left = entry.deadline_at - now
        if left == math.inf or left <= 0:
            return None
        waiting = [_entry(job) for job in self._scheduler.ahead_of(entry.deadline_at)]
        running = self._running
        rows = [row for each in (*running, *waiting) for row in each.unread]
        num_tokens = self._encoder.cost(rows)
        num_turns = max(0, len(running) + len(waiting) - self._budget.max_running_requests)
        ahead = Ahead(num_tokens, num_turns // self._budget.max_running_requests)
        forecast = self._pace.forecast(self._encoder.cost([*rows, *entry.rows]) - num_tokens, ahead, now=now)
        return forecast.refusal(left)

    def run_one(self) -> None:
        """Drops who left, lets in who fits, reads, steps, and scores."""
        swept = self._scheduler.sweep(time.monotonic())
        for late in swept.late:
            _entry(late).deliver(Deadline("the deadline passed before the answer was ready"))
        self._count_dropped("cancelled", len(swept.cancelled))
        self._count_dropped("deadline", len(swept.late))
        unread = [row for entry in self._running for row in entry.unread]
        self._scheduler.admit(num_unread_tokens=self._encoder.cost(unread))
        self._prefill()
        self._finish_done()
        self._advance()
        self._finish_done()
        self._observer.on_state(
            num_waiting=self._scheduler.num_waiting,
            num_running=len(self._scheduler.running),
            num_rows=self._scheduler.num_decoder_rows,
        )

    def _prefill(self) -> None:
        """Encodes rows of several requests together, and starts the requests that are read."""
        started = time.monotonic()
        batch = self._next_rows()
        if not batch:
            return
        entries = list({id(entry): entry for entry, _ in batch}.values())
        try:
            encoded, work = self._encoder.encode([row for _, row in batch])
        except Exception as error:
            self._fail(entries, error)
            return
        beginners = [entry for entry in entries if not entry.encoded]
        for (entry, _), states in zip(batch, encoded, strict=True):
            entry.encoded.append(states)
        for entry in beginners:
            entry.started_at = started
        for entry in entries:
            if not entry.unread:
                self._start(entry)
        now = self.last_success_at = time.monotonic()
        self._pace.on_prefill(work.num_tokens, now - started, now=now)
        queue_seconds = [started - entry.accepted_at for entry in beginners]
        self._observer.on_prefill(work, seconds=now - started, queue_seconds=queue_seconds)

    def _next_rows(self) -> list[tuple[Entry, Row]]:
        """The rows to encode now, within the budget, at least one of them; what is cached costs nothing."""
        room = self._budget.max_prefill_tokens
        batch: list[tuple[Entry, Row]] = []
        for entry in self._running:
            for row in entry.unread:
                cost = self._encoder.cost([row])
                if batch and cost > room:
                    break
                room -= cost
                batch.append((entry, row))
        return batch

    def _start(self, entry: Entry) -> None:
        try:
            entry.program.start(self._model, entry.encoded)
        except Exception as error:
            self._fail([entry], error)
        entry.encoded_at = time.monotonic()

    def _advance(self) -> None:
        """One step for all that decode; of those that need none, one does a slice of its own work."""
        stepping, others = [], []
        for entry in self._running:
            if entry.unread:
                continue
            try:
                items = entry.program.items()
            except Exception as error:
                self._fail([entry], error)
                continue
            if items:
                stepping.append((entry, items))
            else:
                others.append(entry)
        if stepping:
            self._step(stepping)
        if others:
            self._turn += 1
            self._slice(others[self._turn % len(others)])

    def _step(self, group: Sequence[tuple[Entry, Sequence[StepItem]]]) -> None:
        """One model step for all, then each program takes its logits."""
        started = time.monotonic()
        try:
            logits = iter(self._model.step([item for _, items in group for item in items]))
        except Exception as error:
            self._fail([entry for entry, _ in group], error)
            return
        for entry, items in group:
            mine = [next(logits) for _ in items]
            try:
                tokens = entry.program.advance(mine)
            except Exception as error:
                self._fail([entry], error)
                continue
            entry.num_steps += 1
            if entry.first_token_at is None:
                entry.first_token_at = time.monotonic()
            entry.emit(tokens)
        now = self.last_success_at = time.monotonic()
        self._pace.on_step(now - started, now=now)
        num_rows = sum(entry.num_decoder_rows for entry, _ in group)
        self._observer.on_step(num_requests=len(group), num_rows=num_rows, seconds=now - started)

    def _slice(self, entry: Entry) -> None:
        """A slice of a program that works without steps."""
        started = time.monotonic()
        try:
            entry.program.advance([])
        except Exception as error:
            self._fail([entry], error)
            return
        self.last_success_at = time.monotonic()
        self._observer.on_slice(seconds=self.last_success_at - started)

    def _finish_done(self) -> None:
        """Answers the programs that are done."""
        for entry in self._running:
            if entry.unread or not entry.program.is_done:
                continue
            try:
                result = entry.program.finish()
            except Exception as error:
                self._fail([entry], error)
                continue
            self._scheduler.remove(entry)
            self._pace.on_answer(entry.num_steps, now=time.monotonic())
            entry.deliver(entry.finished(result))

    @property
    def _running(self) -> list[Entry]:
        return [_entry(job) for job in self._scheduler.running]

    def _fail(self, entries: Sequence[Entry], error: Exception) -> None:
        for entry in entries:
            self._scheduler.remove(entry)
            entry.deliver(error)
        self._count_dropped("failed", len(entries))

    def _count_dropped(self, reason: str, count: int) -> None:
        if count:
            self._observer.on_dropped(reason=reason, count=count)


def _prefill_tokens(model: Seq2SeqModel) -> int:
    """What is read between two steps: from 1024 tokens on a CPU core does no more per second (bart-base, Zen 5)."""
    return 1024 if model.spec.device == "cpu" else 16_384


def _entry(job: Job) -> Entry:
    assert isinstance(job, Entry)
    return job
