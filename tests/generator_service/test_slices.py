"""Scoring is cut into slices of bounded work that together are the whole, and its cost is counted at the door."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator_service.decoding import marginal
from generator_service.decoding.given import ScoreGiven
from generator_service.decoding.slices import SlicedScoring, plan_slices
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.scheduler import Budget
from generator_service.servicer import GeneratorServicer
from protos.rag.v1 import generator_pb2 as wire
from serving.admission import Admission
from serving.errors import InvalidRequest

_TARGETS = st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=6), min_size=1, max_size=8)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), _TARGETS, st.integers(1, 60))
def test_every_row_meets_every_target_once_and_no_slice_is_larger_than_it_must(
    row_lengths: list[int], targets: list[list[int]], max_tokens: int
) -> None:
    plan = plan_slices(row_lengths, targets, max_tokens=max_tokens)
    pairs = [(row, number) for each in plan for row in range(each.first, each.last) for number in each.targets]
    assert sorted(pairs) == [(row, number) for row in range(len(row_lengths)) for number in range(len(targets))]
    for each in plan:
        num_rows = each.last - each.first
        num_tokens = num_rows * sum(len(targets[number]) for number in each.targets)
        assert num_tokens <= max_tokens or num_rows * len(each.targets) == 1
        assert num_rows == 1 or sum(row_lengths[each.first : each.last]) <= 10 * max_tokens


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize(("max_tokens", "num_slices"), [(1, 20), (1000, 1)])
def test_slices_score_what_one_pass_scores(tiny: Any, family: str, max_tokens: int, num_slices: int) -> None:
    source, model = random.Random(3), tiny.adapt(tiny.family(family))
    rows, targets = tiny.rows(source, 4), tiny.rows(source, 5)
    encoded = model.encode(rows)
    plan = plan_slices([len(row) for row in rows], targets, max_tokens=max_tokens)
    scoring = SlicedScoring(model, encoded, targets, plan)
    for _ in range(num_slices):
        assert not scoring.is_done
        scoring.advance()
    assert scoring.is_done
    for sliced, whole in zip(scoring.scores, model.score(encoded, targets), strict=True):
        torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=1e-5)


def test_a_row_is_projected_once_however_many_slices_it_takes(tiny: Any, tiny_lean: Any) -> None:
    rows, targets = [[5, 6, 7], [8, 9]], [[5, 6, 2], [7, 2], [8, 9, 9, 2]]
    prior = marginal.normalize_log_prior([0, 0])
    before = tiny_lean.counters["rows_projected"]
    sliced = tiny.run(tiny_lean, ScoreGiven(rows, prior, targets, per_token=True, max_slice_tokens=4))
    assert tiny_lean.counters["rows_projected"] - before == 2
    whole = tiny.run(tiny_lean, ScoreGiven(rows, prior, targets, per_token=True))
    assert [each.log_probability for each in sliced] == pytest.approx([each.log_probability for each in whole])


def test_a_huge_request_holds_the_rows_of_a_slice_only() -> None:
    rows, targets = [[5] * 50] * 100, [[6] * 500] * 64
    program = ScoreGiven(rows, torch.zeros(100), targets, per_token=True, max_slice_tokens=1024)
    assert program.num_decoder_rows == 2


async def test_admission_counts_the_answers_of_a_scoring_request_once_per_passage(tiny: Any) -> None:
    model = tiny.loaded()
    generator = Generator(lambda: model, budget=Budget(), limits=Limits(), observer=generator_metrics())
    await generator.start()
    admission = Admission(max_items=9, max_tokens=4000)
    servicer = GeneratorServicer(generator, admission=admission, build_version="", max_message_bytes=1)
    asked = wire.GenerationInput(question="where?", passages=[wire.GeneratorPassage(text="paris")] * 10)
    with pytest.raises(InvalidRequest, match="over the limit of 9 items and 4000 tokens"):
        await servicer.Score(wire.ScoreRequest(input=asked, answers=["a large river " * 8] * 20), None)
    reply = await servicer.Score(wire.ScoreRequest(input=asked, answers=["a large river " * 8] * 2), None)
    await generator.close()
    assert len(reply.scores) == 2
