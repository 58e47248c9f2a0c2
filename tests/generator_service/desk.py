"""Rounds run by hand, and the programs that the tests of the rounds give them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.given import ScoreGiven
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.entry import Entry
from generator_service.rounds import Rounds
from generator_service.scheduler import Budget

ROWS = ((3, 4, 5), (6, 7), (8, 9, 10))


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.hits: list[int] = []
        self.refused: list[str] = []
        self.num_slices = 0
        self.state = (0, 0, 0)

    def on_prefill(self, work: Any, *, seconds: float, queue_seconds: Sequence[float]) -> None:
        self.hits.append(work.num_hits)

    def on_step(self, *, num_requests: int, num_rows: int, seconds: float) -> None:
        pass

    def on_slice(self, *, seconds: float) -> None:
        self.num_slices += 1

    def on_refused(self, *, reason: str) -> None:
        self.refused.append(reason)

    def on_dropped(self, *, reason: str, count: int) -> None:
        pass

    def on_state(self, *, num_waiting: int, num_running: int, num_rows: int) -> None:
        self.state = (num_waiting, num_running, num_rows)


class Desk:
    """Rounds over a model, run by hand."""

    def __init__(self, model: Any, budget: Budget | None = None, *, cache_bytes: int = 0) -> None:
        self.recorder = Recorder()
        self.rounds = Rounds(model, budget or Budget(), self.recorder, encoder_cache_bytes=cache_bytes)

    def submit(self, program: Any, *, deadline_at: float = math.inf) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        entry = Entry(
            num_decoder_rows=program.num_decoder_rows, deadline_at=deadline_at, program=program, future=future
        )
        self.rounds.receive(entry)
        return future

    async def finish(self) -> None:
        while not self.rounds.is_idle:
            self.rounds.run_one()
        await asyncio.sleep(0)


def greedy(rows: Any = ROWS, *, length: int = 6) -> RagToken:
    """RAG-Token of exactly `length` tokens."""
    constraints = Constraints(2, max_new_tokens=length, min_new_tokens=length)
    search = GreedySearch(num_problems=1, start_token_id=1, constraints=constraints)
    return RagToken(rows, marginal.normalize_log_prior([0.0] * len(rows)), search, TokenProgramOptions())


def thorough(rows: Any = ROWS) -> RagSequence:
    """RAG-Sequence with three beams, scored under every passage."""
    constraints = Constraints(2, max_new_tokens=6)
    search = BeamSearch(
        num_problems=len(rows), start_token_id=1, constraints=constraints, options=BeamOptions(3)
    )  # fmt: skip
    return RagSequence(rows, marginal.normalize_log_prior([0.0] * len(rows)), search, SequenceProgramOptions(3, 3))


def score(num_answers: int) -> ScoreGiven:
    """Two slices per answer: one for each of two passages."""
    targets = [[3 + i % 8, 4, 2] for i in range(num_answers)]
    prior = marginal.normalize_log_prior([0.0, 0.0])
    return ScoreGiven(ROWS[:2], prior, targets, per_token=True, max_slice_tokens=3)
