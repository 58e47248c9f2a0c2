"""Passages whose search is over and samples that have ended are not stepped any more."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.decoding.sampling import Sampling, sampler
from generator_service.decoding.search import Search
from generator_service.models import lean

LONGEST = 12


def search_over(problems: int, beams: int, start: int, eos: int) -> Search:
    shared: Any = {
        "num_problems": problems,
        "start_token_id": start,
        "constraints": Constraints(eos, LONGEST),
        "is_stopped": lambda ids: sum(ids) % 5 == 0,
    }
    if beams == 1:
        return GreedySearch(**shared)
    return BeamSearch(options=BeamOptions(beams, early_stopping=True), **shared)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_passage_is_stepped_as_often_as_if_it_were_alone(tiny: Any, beams: int) -> None:
    for seed in range(20):
        rows = tiny.rows(random.Random(seed), 5, vocab_size=12)
        alone = []
        for row in rows:
            model = tiny.fake()
            tiny.run(model, RagSequence([row], torch.zeros(1), search_over(1, beams, 1, 2), SequenceProgramOptions()))
            alone.append(model.num_steps)
        model = tiny.fake()
        program = RagSequence(rows, torch.zeros(5), search_over(5, beams, 1, 2), SequenceProgramOptions())
        tiny.run(model, program)
        assert model.num_steps == max(alone)
        # The first step has one row per passage, the others one per beam.
        assert model.counters["decoder_rows"] == sum(1 + beams * (steps - 1) for steps in alone)


def test_samples_that_have_ended_are_not_stepped(tiny: Any) -> None:
    model = tiny.fake()
    constraints = Constraints(2, LONGEST)
    search = GreedySearch(num_problems=6, start_token_id=1, constraints=constraints, choose=sampler(Sampling(seed=3)))
    program = RagToken([[3, 4], [5]], marginal.normalize_log_prior([0.0, 1.0]), search, TokenProgramOptions(6, 6))
    decoded = tiny.run(model, program)
    lengths = [len(each.token_ids) for each in decoded.hypotheses]
    assert min(lengths) < max(lengths) == model.num_steps
    assert model.counters["decoder_rows"] == 2 * sum(lengths)


@pytest.mark.parametrize("kind", ["lean", "hf"])
@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_remains_is_decoded_as_if_nothing_had_left(
    tiny: Any, family: str, kind: str, beams: int, tmp_path: Path
) -> None:
    reference = tiny.family(family, 2)
    reference.save_pretrained(tmp_path)
    model = lean.load(tmp_path) if kind == "lean" else tiny.adapt(reference)
    spec = model.spec
    rows = tiny.rows(random.Random(beams), 6)

    def found(rows: list[list[int]]) -> list[Any]:
        search = search_over(len(rows), beams, spec.decoder_start_token_id, spec.eos_token_id)
        tiny.run(model, RagSequence(rows, torch.zeros(len(rows)), search, SequenceProgramOptions()))
        return [[each.token_ids for each in problem] for problem in search.hypotheses()]

    together = found(rows)
    assert len({max(map(len, problem)) for problem in together}) > 1
    assert together == [found([row])[0] for row in rows]
