"""Decode steps in buckets: the same logits as the plain step, with a recorder that only repeats the work."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generator_service.models import lean
from generator_service.models.arena import Bucket
from generator_service.models.base import StepItem
from generator_service.models.graphs import GraphedSteps
from generator_service.models.stepping import StepPart


class Repeats:
    """A graph backend without a GPU: runs the function again, into the same memory."""

    def __init__(self, *, error: Exception | None = None, is_wrong: bool = False) -> None:
        self.error, self.is_wrong = error, is_wrong
        self.num_captures = self.num_replays = 0

    def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.error is not None:
            raise self.error
        self.num_captures += 1
        output = function()

        def replay() -> Tensor:
            self.num_replays += 1
            return output.copy_(function()).add_(float(self.is_wrong))

        return replay


@pytest.fixture(params=["bart", "t5"])
def plain(tiny: Any, request: pytest.FixtureRequest, tmp_path: Path) -> lean.LeanModel:
    tiny.family(request.param, 3).save_pretrained(tmp_path)
    return lean.load(tmp_path)


def graphed(plain: lean.LeanModel, backend: Repeats) -> lean.LeanModel:
    return lean.LeanModel(plain._network, plain.spec, graphs=backend)


def walk(model: lean.LeanModel, rows: list[list[int]], seed: int, *, num_beams: int, num_steps: int) -> list[Tensor]:
    """Two requests of K beams under way, reordered and losing rows; the second joins later."""
    source = random.Random(seed)
    encoded = model.encode(rows)
    first = model.open(encoded, num_beams=num_beams)
    second = model.open(encoded[:2], num_beams=num_beams)
    seen = []
    for number in range(num_steps):
        states = [first] if number < 3 else [first, second]
        shapes = [(num_beams, state.num_rows) for state in states]
        items = [StepItem(s, torch.randint(5, 40, shape)) for s, shape in zip(states, shapes, strict=True)]
        for item in items:
            item.tokens.copy_(torch.tensor([[source.randrange(5, 40) for _ in row] for row in item.tokens.tolist()]))
        seen.extend(logits.clone() for logits in model.step(items))
        beams = torch.tensor([[source.randrange(num_beams) for _ in range(first.num_rows)] for _ in range(num_beams)])
        if number == 5:
            model.reorder(first, beams[:, 1:], list(range(1, first.num_rows)))
        elif num_beams > 1:
            model.reorder(first, beams)
    return seen


@pytest.mark.parametrize("num_beams", [1, 3])
def test_replayed_steps_equal_plain_ones(tiny: Any, plain: lean.LeanModel, num_beams: int) -> None:
    rows = tiny.rows(random.Random(num_beams), 5)
    backend = Repeats()
    expected = walk(plain, rows, 7, num_beams=num_beams, num_steps=20)
    actual = walk(graphed(plain, backend), rows, 7, num_beams=num_beams, num_steps=20)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    # 8 rows; 16, then 32 own tokens: two graphs, each checked by a replay of its own.
    assert backend.num_captures == 2
    assert backend.num_replays == 20


@pytest.mark.parametrize(
    "flaw", [{"error": RuntimeError("operation not permitted when stream is capturing")}, {"is_wrong": True}]
)
def test_a_graph_that_fails_or_disagrees_is_never_used(tiny: Any, plain: lean.LeanModel, flaw: Any) -> None:
    backend = Repeats(**flaw)
    rows = tiny.rows(random.Random(1), 3)
    expected = walk(plain, rows, 7, num_beams=1, num_steps=8)
    actual = walk(graphed(plain, backend), rows, 7, num_beams=1, num_steps=8)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(actual, expected, strict=True))
    assert backend.num_replays <= 1


def part(model: lean.LeanModel, lengths: list[int], *, num_beams: int = 1, position: int = 0, fed: int = 1) -> StepPart:
    state = model.open(model.encode([[7] * length for length in lengths]), num_beams=num_beams)
    if position:
        model.step([StepItem(state, torch.full((num_beams, len(lengths), position), 6))])
    return StepPart.of(state, torch.full((num_beams, len(lengths), fed), 6))


def test_buckets_hold_all_rows_their_past_and_the_longest_input(plain: lean.LeanModel) -> None:
    assert Bucket.of([part(plain, [3])]) == Bucket(1, 4, 16, 64)
    assert Bucket.of([part(plain, [3, 64, 5]), part(plain, [9, 2], position=15)]) == Bucket(1, 8, 16, 64)
    assert Bucket.of([part(plain, [3, 40], num_beams=3, position=16)]) == Bucket(3, 4, 32, 64)


def test_steps_that_fit_no_bucket_are_plain(plain: lean.LeanModel) -> None:
    assert Bucket.of([part(plain, [3], num_beams=2), part(plain, [3])]) is None
    assert Bucket.of([part(plain, [3], fed=2)]) is None
    assert Bucket.of([part(plain, [3] * 130, num_beams=4)]) is None


@torch.inference_mode()
def test_graphs_used_longest_ago_make_room(plain: lean.LeanModel) -> None:
    backend = Repeats()
    steps = GraphedSteps(plain._network, backend, max_bytes=1)
    small, large = part(plain, [3]), part(plain, [3] * 9)
    for each in (small, large, large, small):
        steps.step([StepPart(each.state, each.tokens)])
    assert steps.num_graphs == 1
    assert backend.num_captures == 3


def test_what_a_finished_request_had_is_not_kept(tiny: Any, plain: lean.LeanModel) -> None:
    model = graphed(plain, Repeats())
    state = model.open(model.encode([[5, 6, 7]]))
    for _ in range(3):
        model.step([StepItem(state, torch.tensor([[6]]))])
    keys = weakref.ref(state.cross.layers[0][0])
    del state
    gc.collect()
    assert keys() is None
