"""A deadline is refused only where the engine at its best could not meet it, and never without measurements."""

from __future__ import annotations

import math
from typing import Any

import pytest

from generator_service.forecast import Ahead, Forecast, Pace
from serving.errors import Deadline, Overloaded

NOBODY = Ahead(0, 0)


def measured(*, token_seconds: float = 0.001, step_seconds: float = 0.01, num_steps: int = 5, now: float = 0.0) -> Pace:
    pace = Pace()
    for slowness in (3.0, 1.0, 2.0, 9.0):
        pace.on_prefill(1000, 1000 * token_seconds * slowness, now=now)
        pace.on_step(step_seconds * slowness, now=now)
        pace.on_answer(int(num_steps * slowness), now=now)
    return pace


def test_without_measurements_nothing_is_forecast() -> None:
    assert Pace().forecast(10**9, Ahead(10**9, 10**9), now=0.0) == Forecast(0.0, 0.0)


def test_a_few_measurements_are_none() -> None:
    pace = Pace()
    for _ in range(3):
        pace.on_prefill(1000, 5.0, now=0.0)
    assert pace.forecast(10**9, NOBODY, now=0.0).work_seconds == 0.0


def test_small_batches_say_nothing_about_the_time_of_a_token() -> None:
    pace = Pace()
    for _ in range(10):
        pace.on_prefill(5, 1.0, now=0.0)
    assert pace.forecast(1000, NOBODY, now=0.0).work_seconds == 0.0


def test_the_best_measurements_count() -> None:
    forecast = measured().forecast(200, Ahead(num_tokens=3000, num_turns=2), now=0.0)
    assert forecast.work_seconds == pytest.approx(200 * 0.001 + 0.01)
    assert forecast.wait_seconds == pytest.approx(3000 * 0.001 + 2 * 5 * 0.01)


def test_old_measurements_are_forgotten_so_that_an_engine_that_refuses_all_tries_again() -> None:
    pace = measured(now=100.0)
    assert pace.forecast(200, NOBODY, now=160.0).work_seconds > 0
    assert pace.forecast(200, NOBODY, now=161.0).work_seconds == 0.0


@pytest.mark.parametrize(
    ("wait", "work", "left", "expected", "reason"),
    [
        (0.0, 0.5, 0.4, Deadline, "DEADLINE_UNREACHABLE"),
        (9.0, 0.5, 0.4, Deadline, "DEADLINE_UNREACHABLE"),
        (2.0, 0.5, 2.4, Overloaded, "QUEUE_TOO_LONG"),
        (2.0, 0.5, 2.6, None, None),
        (0.0, 0.0, 1e-9, None, None),
        (2.0, 0.5, math.inf, None, None),
    ],
)
def test_a_refusal_says_whether_it_is_the_request_or_the_queue_and_names_the_estimate(
    wait: float, work: float, left: float, expected: Any, reason: str | None
) -> None:
    refusal = Forecast(wait, work).refusal(left)
    if expected is None:
        assert refusal is None
        return
    assert isinstance(refusal, expected)
    assert refusal.reason == reason
    assert "0.5 s" in refusal.message
    assert f"deadline is in {left} s" in refusal.message
    assert refusal.retry_after_seconds == (2.0 if expected is Overloaded else None)
