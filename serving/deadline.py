"""Deadlines: absolute moments that travel with a request through every stage."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass

from serving import errors


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment of the monotonic clock, `at` seconds; infinity is no deadline."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        """No deadline."""
        return cls(math.inf)

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return time.monotonic() >= self.at

    def remaining(self) -> float:
        """Seconds left, not below 0; infinity without a deadline."""
        return max(0.0, self.at - time.monotonic())

    def timeout(self, *, reserve_seconds: float = 0.0) -> float | None:
        """Seconds left for a call downstream, as grpc takes them: None without a deadline.

        Args:
            reserve_seconds: Kept back for the work that follows the call.

        Raises:
            serving.errors.Deadline: When nothing is left.
        """
        if math.isinf(self.at):
            return None
        left = self.remaining() - reserve_seconds
        if left <= 0:
            raise errors.Deadline("the deadline leaves no time for the next stage", reason="DEADLINE_UNREACHABLE")
        return left


_deadline: ContextVar[Deadline | None] = ContextVar("rag_deadline", default=None)
_request_id: ContextVar[str] = ContextVar("rag_request_id", default="")


def current_deadline() -> Deadline:
    """The deadline of the RPC being served; never, outside of one."""
    return _deadline.get() or Deadline.never()


def current_request_id() -> str:
    """The request id of the RPC being served; empty outside of one."""
    return _request_id.get()


def enter_request(deadline: Deadline, request_id: str) -> None:
    """Sets deadline and request id for the current task. Called by the interceptor alone."""
    _deadline.set(deadline)
    _request_id.set(request_id)
