"""How soon a request could be answered, at the engine's best pace of late. Pure: moments and durations are given.

Every figure is the least that was measured, and only what is certain is counted, so that nothing is given up that could
be met. An answer's own length is not known: it counts as one step.
"""

from collections import deque
from dataclasses import dataclass

from serving.errors import Deadline, Overloaded, RagError

_NUM_SAMPLES = 64
_LEAST_SAMPLES = 4
"""The first runs of a model are slow; they alone say nothing."""
_MAX_AGE_SECONDS = 60.0
"""An engine that refuses everything measures nothing: old figures must not hold for ever."""
_LEAST_TOKENS = 256
"""A smaller batch measures what a call costs, not what a token does."""


class _Least:
    """The least of the latest values."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_NUM_SAMPLES)

    def add(self, value: float, *, now: float) -> None:
        self._samples.append((now, value))

    def at(self, now: float) -> float | None:
        """None while there are too few."""
        fresh = [value for moment, value in self._samples if now - moment <= _MAX_AGE_SECONDS]
        return min(fresh) if len(fresh) >= _LEAST_SAMPLES else None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What comes before a request: tokens to encode, and how often all places must be given up and taken again."""

    num_tokens: int
    num_turns: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds a request must wait for others, and takes itself, at the very least."""

    wait_seconds: float
    work_seconds: float

    def refusal(self, left_seconds: float) -> RagError | None:
        """Why a request with so much time left should not be taken, or None."""
        if self.work_seconds > left_seconds:
            return Deadline(
                f"the answer takes {self.work_seconds:.3g} s at the least; the deadline is in {left_seconds:.3g} s",
                reason="DEADLINE_UNREACHABLE",
            )
        if self.wait_seconds + self.work_seconds > left_seconds:
            return Overloaded(
                f"the requests ahead take {self.wait_seconds:.3g} s and the answer {self.work_seconds:.3g} s at the "
                f"least; the deadline is in {left_seconds:.3g} s",
                reason="QUEUE_TOO_LONG",
                retry_after_seconds=self.wait_seconds,
            )
        return None


class Pace:
    """What the engine measures of itself: seconds per encoder token and per step, steps per answer."""

    def __init__(self) -> None:
        self._token_seconds = _Least()
        self._step_seconds = _Least()
        self._num_steps = _Least()

    def on_prefill(self, num_tokens: int, seconds: float, *, now: float) -> None:
        """Some rows were encoded."""
        if num_tokens >= _LEAST_TOKENS:
            self._token_seconds.add(seconds / num_tokens, now=now)

    def on_step(self, seconds: float, *, now: float) -> None:
        """One step was taken by all."""
        self._step_seconds.add(seconds, now=now)

    def on_answer(self, num_steps: int, *, now: float) -> None:
        """A request ended after so many steps."""
        self._num_steps.add(num_steps, now=now)

    def forecast(self, num_tokens: int, ahead: Ahead, *, now: float) -> Forecast:
        """What is certain of a request that has `num_tokens` to encode; zero where nothing was measured."""
        token_seconds = self._token_seconds.at(now) or 0.0
        step_seconds = self._step_seconds.at(now) or 0.0
        turn_seconds = step_seconds * (self._num_steps.at(now) or 0.0)
        return Forecast(
            wait_seconds=ahead.num_tokens * token_seconds + ahead.num_turns * turn_seconds,
            work_seconds=num_tokens * token_seconds + step_seconds,
        )
