"""A round does a bounded amount of each kind of work and shares what can be shared."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from generator_service.scheduler import Budget
from tests.generator_service.desk import ROWS, Desk, greedy, score, thorough


@pytest.mark.parametrize("make", [greedy, thorough, lambda: score(5)])
async def test_rows_encoded_are_the_number_of_passages_and_none_when_the_question_is_repeated(
    tiny: Any, make: Any
) -> None:
    model = tiny.fake()
    desk = Desk(model, cache_bytes=10_000)
    first = desk.submit(make())
    await desk.finish()
    assert model.counters["rows_encoded"] == len(make().rows)
    second = desk.submit(make())
    await desk.finish()
    assert model.counters["rows_encoded"] == len(make().rows)
    assert desk.recorder.hits == [0, len(make().rows)]
    assert second.result().result == first.result().result


async def test_equal_requests_are_read_once_and_take_as_many_steps_as_one(tiny: Any) -> None:
    alone, shared = tiny.fake(), tiny.fake()
    desk = Desk(alone)
    desk.submit(greedy())
    await desk.finish()
    desk = Desk(shared)
    together = [desk.submit(greedy()) for _ in range(20)]
    await desk.finish()
    assert (alone.num_steps, shared.num_steps) == (6, 6)
    assert shared.counters["rows_encoded"] == len(ROWS)
    assert len({future.result().result for future in together}) == 1


async def test_a_request_of_many_passages_is_read_in_pieces_while_others_step(tiny: Any) -> None:
    model = tiny.fake()
    desk = Desk(model, Budget(max_prefill_tokens=8))
    running = desk.submit(greedy(length=30))
    desk.rounds.run_one()
    long = desk.submit(greedy([[3 + i % 7] * 4 for i in range(10)], length=2))
    encoded, steps = [], []
    for _ in range(5):
        before = model.counters["encoded_tokens"]
        desk.rounds.run_one()
        encoded.append(model.counters["encoded_tokens"] - before)
        steps.append(model.num_steps)
    assert max(encoded) == 8
    assert steps == [2, 3, 4, 5, 6]
    await desk.finish()
    assert len(long.result().result.hypotheses[0].token_ids) == 2
    assert len(running.result().result.hypotheses[0].token_ids) == 30


async def test_what_is_cached_joins_while_a_long_request_is_being_read(tiny: Any) -> None:
    desk = Desk(tiny.fake(), Budget(max_prefill_tokens=8), cache_bytes=10_000)
    desk.submit(greedy())
    await desk.finish()
    desk.submit(greedy([[3 + i] * 8 for i in range(8)]))
    desk.rounds.run_one()
    cached = desk.submit(greedy(length=2))
    for _ in range(3):
        desk.rounds.run_one()
    await asyncio.sleep(0)
    assert cached.done()
    await desk.finish()


async def test_a_row_longer_than_the_budget_is_read_alone(tiny: Any) -> None:
    model = tiny.fake()
    desk = Desk(model, Budget(max_prefill_tokens=3))
    futures = [desk.submit(greedy([[5] * 7, [6] * 2])), desk.submit(greedy([[4]]))]
    await desk.finish()
    assert all(future.done() for future in futures)
    assert desk.recorder.state == (0, 0, 0)


async def test_a_long_scoring_request_does_one_slice_between_two_steps(tiny: Any) -> None:
    model = tiny.fake()
    desk = Desk(model)
    scored, decoded = desk.submit(score(9)), desk.submit(greedy(length=5))
    for number in range(1, 6):
        desk.rounds.run_one()
        assert (model.num_steps, desk.recorder.num_slices) == (number, number)
    await asyncio.sleep(0)
    assert (decoded.done(), scored.done()) == (True, False)
    await desk.finish()
    assert desk.recorder.num_slices == 18
    assert len(scored.result().result) == 9


async def test_scoring_requests_take_turns(tiny: Any) -> None:
    desk = Desk(tiny.fake())
    long, short = desk.submit(score(50)), desk.submit(score(1))
    for _ in range(4):
        desk.rounds.run_one()
    await asyncio.sleep(0)
    assert desk.recorder.num_slices == 4, "one a round, however many wait for theirs"
    assert (short.done(), long.done()) == (True, False)
    desk.rounds.clear()


async def test_a_program_that_cannot_be_read_fails_alone(tiny: Any) -> None:
    desk = Desk(tiny.fake())
    broken, good = desk.submit(greedy([["no token"]])), desk.submit(greedy())
    await desk.finish()
    assert isinstance(broken.exception(), TypeError)
    assert good.result().result


@pytest.mark.parametrize(("device", "num_tokens"), [("cpu", 1024), ("cuda:0", 16_000)])
async def test_the_device_decides_how_much_is_read_between_two_steps(tiny: Any, device: str, num_tokens: int) -> None:
    model = tiny.fake()
    model.spec = replace(model.spec, device=device)
    desk = Desk(model)
    desk.submit(greedy([[3 + i % 7, 3 + i // 7] * 64 for i in range(125)]))
    desk.rounds.run_one()
    assert model.counters["encoded_tokens"] == num_tokens
    desk.rounds.clear()


async def test_a_thorough_request_completes_its_hypotheses_in_slices_while_others_step(tiny: Any) -> None:
    model = tiny.fake()
    desk, program = Desk(model), thorough()
    program._options = replace(program._options, max_slice_tokens=8)
    completed, decoded = desk.submit(program), desk.submit(greedy(length=30))
    await desk.finish()
    assert desk.recorder.num_slices > 3
    assert model.num_steps == 30
    assert completed.result().result == tiny.run(model, thorough())
    assert decoded.result().result
