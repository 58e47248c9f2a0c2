"""One request's way through the engine: its program, its clock, and its caller in an event loop."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from generator_service.decoding.program import EmittedToken, Program
from generator_service.models.base import EncodedRow
from generator_service.row_encoder import Row
from generator_service.scheduler import Job
from serving.logs import get_logger

Result = TypeVar("Result")
OnTokens = Callable[[Sequence[EmittedToken]], None]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """Seconds a request spent waiting, being encoded, and being decoded and scored."""

    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class Finished(Generic[Result]):
    """A program's result and what it took; `first_token_seconds` counts from submission, None without steps."""

    result: Result
    timings: EngineTimings
    first_token_seconds: float | None


@dataclass(slots=True, eq=False, kw_only=True)
class Entry(Job):
    """A job with its program and its way back to the caller. `encoded` are the states of the `rows` read so far."""

    program: Program[Any]
    future: asyncio.Future[Finished[Any]]
    on_tokens: OnTokens | None = None
    rows: list[Row] = field(default_factory=list)
    encoded: list[EncodedRow] = field(default_factory=list)
    num_steps: int = 0
    accepted_at: float = 0.0
    started_at: float = 0.0
    encoded_at: float = 0.0
    first_token_at: float | None = None

    @property
    def unread(self) -> Sequence[Row]:
        """The rows still to be encoded; with none, the program has started."""
        return self.rows[len(self.encoded) :]

    def finished(self, result: Any) -> Finished[Any]:
        """The result with what it took until now."""
        queued, encoded = self.started_at - self.accepted_at, self.encoded_at - self.started_at
        timings = EngineTimings(queued, encoded, time.monotonic() - self.encoded_at)
        first = None if self.first_token_at is None else self.first_token_at - self.accepted_at
        return Finished(result, timings, first)

    def deliver(self, outcome: Finished[Any] | BaseException) -> None:
        """Answers the caller, from any thread; a second answer is not possible."""
        self._call(_settle, self.future, outcome)

    def emit(self, tokens: Sequence[EmittedToken]) -> None:
        """Passes tokens on, from any thread, in order and before the result."""
        if self.on_tokens is not None and tokens:
            self._call(self.on_tokens, tokens)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self.future.get_loop().call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # The loop is closed: nobody waits any more.
            log.debug("a caller's event loop is closed")


def _settle(future: asyncio.Future[Finished[Any]], outcome: Finished[Any] | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
