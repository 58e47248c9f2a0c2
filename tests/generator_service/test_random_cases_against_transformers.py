"""Our models give transformers' ids in 208 random cases: both families, both models, 1 to 8 passages, 1 to 6 beams.

Every pair of passages and beams occurs in each family and model; rows are ragged; length penalty, shortest and longest
answer, early stopping and repeated n-grams vary with the case.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.program import Program
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.models import lean

PENALTIES = (-1.0, 0.0, 0.5, 1.0, 2.0)
MAX_NEW_TOKENS = (4, 7, 10)
MIN_NEW_TOKENS = (2, 3, 4)


@dataclass(frozen=True, slots=True)
class Case:
    """What a number stands for; 48 numbers run through every pair of passages and beams."""

    number: int

    @property
    def num_passages(self) -> int:
        return 1 + self.number % 8

    @property
    def num_beams(self) -> int:
        return 1 + self.number // 8 % 6

    @property
    def beam_options(self) -> dict[str, Any]:
        if self.num_beams == 1:
            return {}
        return {"length_penalty": PENALTIES[self.number % 5], "early_stopping": self.number % 2 == 1}

    @property
    def bounds(self) -> dict[str, int]:
        return {
            "max_new_tokens": MAX_NEW_TOKENS[self.number % 3],
            "min_new_tokens": MIN_NEW_TOKENS[self.number // 3 % 3],
            "no_repeat_ngram_size": (0, 0, 2)[self.number // 9 % 3],
        }


NUMBERS = range(52)
NUM_WEIGHTS = 7
"""Random weights of each family; prime to the cases' periods, so that each meets all kinds of them."""

Pairs = Callable[[str, int], tuple[Any, Any]]


@pytest.fixture(scope="module")
def pairs(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """transformers' model and ours, by family and seed."""

    @functools.cache
    def pair(family: str, seed: int) -> tuple[Any, Any]:
        folder = tmp_path_factory.mktemp(family)
        reference = tiny.family(family, seed)
        reference.save_pretrained(folder)
        return reference, lean.load(folder)

    return pair


def test_the_cases_are_all_pairs_with_every_option_among_several_beams():
    cases = [Case(number) for number in NUMBERS]
    assert {(case.num_passages, case.num_beams) for case in cases} == {(k, b) for k in range(1, 9) for b in range(1, 7)}
    several = [case for case in cases if case.num_beams > 1]
    assert {case.beam_options["length_penalty"] for case in several} == set(PENALTIES)
    bounds = {(case.bounds["min_new_tokens"], case.bounds["max_new_tokens"]) for case in several}
    assert bounds == {(low, high) for low in MIN_NEW_TOKENS for high in MAX_NEW_TOKENS}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("per_token", [True, False], ids=["rag-token", "rag-sequence"])
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_the_ids_equal_transformers(
    tiny: Any, pairs: Pairs, monkeypatch: pytest.MonkeyPatch, family: str, per_token: bool, number: int
) -> None:
    case, source = Case(number), random.Random(f"{family} {per_token} {number}")
    reference, model = pairs(family, number % NUM_WEIGHTS)
    rows = tiny.rows(source, case.num_passages)
    scores = [source.gauss(0, 2) for _ in rows]
    decoded = tiny.run(model, program(model, case, rows, scores, per_token=per_token))
    if not per_token:  # Its searches attend to padding; told which tokens are real, they do not.
        mask = tiny.padded(rows, model.spec.pad_token_id)[1]
        monkeypatch.setattr(reference, "generate", masked(reference.generate, mask))
    expected = transformers_ids(tiny, reference, model, case, rows, scores, per_token=per_token)
    assert decoded.hypotheses[0].token_ids == expected


def program(model: Any, case: Case, rows: Any, scores: Any, *, per_token: bool) -> Program[Any]:
    spec, beams = model.spec, case.num_beams
    constraints = Constraints(
        spec.eos_token_id,
        bad_words=((spec.pad_token_id,),),  # Random weights would choose it, and transformers does not count it.
        forced_bos_token_id=None,
        forced_eos_token_id=None,
        **case.bounds,
    )
    shared: dict[str, Any] = {
        "num_problems": 1 if per_token else len(rows),
        "start_token_id": spec.decoder_start_token_id,
        "constraints": constraints,
    }
    search: Any = GreedySearch(**shared)
    if beams > 1:
        search = BeamSearch(options=BeamOptions(beams, **case.beam_options), **shared)
    prior = marginal.normalize_log_prior(scores)
    if per_token:
        return RagToken(rows, prior, search, TokenProgramOptions(beams))
    return RagSequence(rows, prior, search, SequenceProgramOptions(beams))


def transformers_ids(
    tiny: Any, reference: Any, model: Any, case: Case, rows: Any, scores: Any, *, per_token: bool
) -> tuple[int, ...]:
    spec = model.spec
    ids, mask = tiny.padded(rows, spec.pad_token_id)
    options: dict[str, Any] = {"num_beams": case.num_beams, "do_sample": False, **case.beam_options, **case.bounds}
    options["bad_words_ids"] = [[spec.pad_token_id]]
    if per_token:  # This generate method reads max_length alone.
        options["max_length"] = options.pop("max_new_tokens") + 1
    peer = tiny.rag(reference, len(rows), per_token=per_token)
    generated = peer.generate(
        context_input_ids=ids,
        context_attention_mask=mask,
        doc_scores=torch.tensor([scores]),
        n_docs=len(rows),
        **options,
    )
    new = generated[0].tolist()[1:]
    new = new[: new.index(spec.eos_token_id) + 1] if spec.eos_token_id in new else new
    return tuple(token for token in new if token != spec.pad_token_id)


def masked(generate: Any, mask: Any) -> Any:
    """The model's own generate with this mask, instead of the None that RagSequence passes."""
    return lambda ids, **options: generate(ids, **{**options, "attention_mask": mask})
