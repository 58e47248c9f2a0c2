"""The engine answers every request exactly once, shares its steps, and frees the rows of those who leave."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.engine import Engine
from generator_service.scheduler import Budget
from serving.errors import Deadline, NotReady


class Recorder:
    """An observer that keeps the last state and counts drops."""

    def __init__(self) -> None:
        self.state = (0, 0, 0)
        self.dropped: dict[str, int] = {}
        self.prefill_rows: list[int] = []

    def on_prefill(self, work: Any, *, seconds: float, queue_seconds: Sequence[float]) -> None:
        self.prefill_rows.append(work.num_hits + work.num_rows)

    def on_step(self, *, num_requests: int, num_rows: int, seconds: float) -> None:
        pass

    def on_slice(self, *, seconds: float) -> None:
        pass

    def on_refused(self, *, reason: str) -> None:
        pass

    def on_dropped(self, *, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def on_state(self, *, num_waiting: int, num_running: int, num_rows: int) -> None:
        self.state = (num_waiting, num_running, num_rows)


@asynccontextmanager
async def running(model: Any, budget: Budget | None = None) -> AsyncIterator[tuple[Engine, Recorder]]:
    recorder = Recorder()
    engine = Engine(model, budget or Budget(), recorder)
    engine.start()
    try:
        yield engine, recorder
    finally:
        await engine.stop()


def program(seed: int, *, length: int = 8, endless: bool = False) -> Any:
    """A random mix of models, beams and passages; `endless` never chooses end-of-sequence before `length`."""
    source = random.Random(seed)
    rows = [[source.randrange(3, 12) for _ in range(source.randrange(1, 6))] for _ in range(source.randrange(1, 5))]
    constraints = Constraints(2, max_new_tokens=length, min_new_tokens=length if endless else source.randrange(4))
    beams = source.choice([1, 1, 3])
    per_token = source.random() < 0.5
    shared: Any = {
        "num_problems": 1 if per_token else len(rows), "start_token_id": 1, "constraints": constraints
    }  # fmt: skip
    search: Any = GreedySearch(**shared) if beams == 1 else BeamSearch(options=BeamOptions(beams), **shared)
    prior = marginal.normalize_log_prior([source.gauss(0, 1) for _ in rows])
    if per_token:
        return RagToken(rows, prior, search, TokenProgramOptions(beams, beams))
    return RagSequence(rows, prior, search, SequenceProgramOptions(beams, beams))


def ids(decoded: Any) -> list[tuple[int, ...]]:
    return [each.token_ids for each in decoded.hypotheses]


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_requests_that_share_steps_get_what_they_get_alone(tiny: Any) -> None:
    alone = [tiny.run(tiny.fake(), program(seed)) for seed in range(40)]
    model = tiny.fake()
    async with running(model, Budget(max_running_requests=16)) as (engine, recorder):
        together = await asyncio.gather(*(engine.run(program(seed), deadline_at=math.inf) for seed in range(40)))
    for one, other in zip(alone, together, strict=True):
        assert ids(one) == ids(other.result)
        for left, right in zip(one.hypotheses, other.result.hypotheses, strict=True):
            assert left.log_probability == pytest.approx(right.log_probability, abs=1e-5)
    assert model.num_steps < 40 * 3
    assert sum(recorder.prefill_rows) == sum(len(program(seed).rows) for seed in range(40))
    assert recorder.state == (0, 0, 0)


@pytest.mark.parametrize("family", ["bart", "t5"])
async def test_requests_of_real_models_get_what_they_get_alone(tiny: Any, family: str) -> None:
    model = tiny.adapt(tiny.family(family, 3))
    alone = [tiny.run(model, program(seed)) for seed in range(12)]
    async with running(model) as (engine, _):
        together = await asyncio.gather(*(engine.run(program(seed), deadline_at=math.inf) for seed in range(12)))
    assert [ids(one) for one in alone] == [ids(other.result) for other in together]


async def test_a_cancelled_request_frees_its_rows_at_the_next_step(tiny: Any) -> None:
    model = tiny.fake()
    model.before_step = lambda: time.sleep(0.001)
    async with running(model) as (engine, recorder):
        kept = asyncio.create_task(engine.run(program(3, length=100, endless=True), deadline_at=math.inf))
        gone = asyncio.create_task(engine.run(program(4, length=100, endless=True), deadline_at=math.inf))
        await until(lambda: recorder.state[1] == 2)
        gone.cancel()
        await until(lambda: recorder.state[1] == 1)
        assert not kept.done()
        assert recorder.dropped == {"cancelled": 1}
        assert recorder.state[2] == program(3, length=100, endless=True).num_decoder_rows
        assert len(ids((await kept).result)[0]) == 100


async def test_a_request_whose_deadline_passes_is_told_so_waiting_or_running(tiny: Any) -> None:
    model = tiny.fake()
    model.before_step = lambda: time.sleep(0.002)
    async with running(model, Budget(max_running_requests=1)) as (engine, recorder):
        running_late = engine.run(program(1, length=100, endless=True), deadline_at=time.monotonic() + 0.03)
        waiting_late = engine.run(program(2), deadline_at=time.monotonic() + 0.031)
        outcomes = await asyncio.gather(running_late, waiting_late, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Deadline, Deadline]
    assert recorder.dropped == {"deadline": 2}


@pytest.mark.parametrize("method", ["start", "items", "advance", "finish"])
async def test_a_program_that_fails_fails_alone(tiny: Any, method: str) -> None:
    broken = program(1)
    setattr(broken, method, lambda *_: 1 / 0)
    async with running(tiny.fake()) as (engine, _):
        good = engine.run(program(2), deadline_at=math.inf)
        outcomes = await asyncio.gather(engine.run(broken, deadline_at=math.inf), good, return_exceptions=True)
        assert isinstance(outcomes[0], ZeroDivisionError)
        assert ids(outcomes[1].result) == ids(tiny.run(tiny.fake(), program(2)))
        assert engine.is_alive


async def test_a_failing_step_fails_those_in_it_and_the_engine_goes_on(tiny: Any) -> None:
    model = tiny.fake()
    model.fail_step = RuntimeError("device lost")
    async with running(model) as (engine, recorder):
        with pytest.raises(RuntimeError, match="device lost"):
            await engine.run(program(1), deadline_at=math.inf)
        model.fail_step = None
        await engine.run(program(1), deadline_at=math.inf)
        assert recorder.dropped == {"failed": 1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_death_of_the_thread_answers_everyone_and_is_reported(tiny: Any) -> None:
    model = tiny.fake()
    entered, die = threading.Event(), threading.Event()

    def crash() -> None:
        entered.set()
        die.wait()
        raise SystemExit("out of memory")

    model.before_step = crash
    async with running(model, Budget(max_running_requests=1)) as (engine, _):
        waiting = [asyncio.create_task(engine.run(program(seed), deadline_at=math.inf)) for seed in range(5)]
        await asyncio.to_thread(entered.wait)
        die.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady] * 5
        assert not engine.is_alive
        with pytest.raises(NotReady):
            await engine.run(program(1), deadline_at=math.inf)


async def test_stopping_answers_those_who_wait(tiny: Any) -> None:
    model = tiny.fake()
    model.before_step = lambda: time.sleep(0.005)
    async with running(model) as (engine, recorder):
        waiting = asyncio.create_task(engine.run(program(1, length=100, endless=True), deadline_at=math.inf))
        await until(lambda: recorder.state[1] == 1)
        await engine.stop()
        with pytest.raises(NotReady):
            await waiting


async def test_greedy_tokens_arrive_in_order_and_before_the_result(tiny: Any) -> None:
    rows = [[3, 4], [5]]
    prior = marginal.normalize_log_prior([0.5, 0.0])
    search = GreedySearch(num_problems=1, start_token_id=1, constraints=Constraints(2, max_new_tokens=6))
    tokens: list[int] = []
    async with running(tiny.fake()) as (engine, _):
        finished = await engine.run(
            RagToken(rows, prior, search, TokenProgramOptions()),
            deadline_at=math.inf,
            on_tokens=lambda emitted: tokens.extend(each.token_id for each in emitted),
        )
    assert tuple(tokens) == ids(finished.result)[0]
    assert finished.first_token_seconds is not None
