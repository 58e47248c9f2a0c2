"""What cannot be ready by its deadline is refused on arrival, and nothing else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from generator_service import rounds as rounds_module
from serving.errors import Deadline, Overloaded
from tests.generator_service.desk import Desk, greedy


@pytest.fixture
def clocked(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model whose every encoded token takes a millisecond of a clock that stands still otherwise."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(rounds_module, "time", clock)
    model = tiny.fake()
    encode = model.encode

    def slowly(rows: Any) -> Any:
        clock.now += 0.001 * sum(map(len, rows))
        return encode(rows)

    model.encode = slowly
    model.clock = clock
    return model


def long_rows(number: int) -> list[list[int]]:
    """Three rows of 100 tokens, different for each number."""
    return [[3 + number % 7, 3 + number // 7, 3 + i] + [3] * 97 for i in range(3)]


async def measure(desk: Desk) -> None:
    for number in range(4):
        desk.submit(greedy(long_rows(number), length=1))
        await desk.finish()


async def test_before_there_are_measurements_nothing_is_refused(clocked: Any) -> None:
    desk = Desk(clocked)
    future = desk.submit(greedy(long_rows(0), length=1), deadline_at=0.001)
    await desk.finish()
    assert isinstance(future.exception(), Deadline | None)
    assert desk.recorder.refused == []


async def test_a_deadline_that_reading_alone_exceeds_is_refused_on_arrival(clocked: Any) -> None:
    desk = Desk(clocked)
    await measure(desk)
    late = desk.submit(greedy(long_rows(9)), deadline_at=clocked.clock.now + 0.29)
    await asyncio.sleep(0)
    error = late.exception()
    assert isinstance(error, Deadline)
    assert error.reason == "DEADLINE_UNREACHABLE"
    assert "0.3 s" in error.message
    assert desk.rounds.is_idle
    met = desk.submit(greedy(long_rows(9), length=1), deadline_at=clocked.clock.now + 0.31)
    await desk.finish()
    assert met.result().result
    assert desk.recorder.refused == ["DEADLINE_UNREACHABLE"]


async def test_a_deadline_that_the_queue_exceeds_is_refused_with_the_time_to_try_again(clocked: Any) -> None:
    desk = Desk(clocked)
    await measure(desk)
    now = clocked.clock.now
    for number in range(10, 13):
        desk.submit(greedy(long_rows(number)), deadline_at=now + 0.95)
    desk.submit(greedy(long_rows(13)))
    assert desk.recorder.refused == []
    refused = desk.submit(greedy(long_rows(14)), deadline_at=now + 1.0)
    await asyncio.sleep(0)
    error = refused.exception()
    assert isinstance(error, Overloaded)
    assert (error.reason, error.retry_after_seconds) == ("QUEUE_TOO_LONG", pytest.approx(0.9))
    desk.submit(greedy(long_rows(15)), deadline_at=now + 0.5)
    assert desk.recorder.refused == ["QUEUE_TOO_LONG"], "an earlier deadline goes before the queue"
    desk.rounds.clear()


async def test_what_is_cached_or_already_queued_does_not_count_against_a_deadline(clocked: Any) -> None:
    desk = Desk(clocked, cache_bytes=1_000_000)
    await measure(desk)
    now = clocked.clock.now
    cached = desk.submit(greedy(long_rows(0), length=1), deadline_at=now + 0.001)
    queued = [desk.submit(greedy(long_rows(9), length=1), deadline_at=now + 0.31) for _ in range(20)]
    await desk.finish()
    assert all(future.result().result for future in (cached, *queued))
    assert desk.recorder.refused == []
