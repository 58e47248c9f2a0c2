"""The lean models on a GPU: the ids of transformers, graphs that equal the plain step, no leaks.

Skipped where there is no CUDA device.
"""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.decoding.search import Search
from generator_service.models import lean
from generator_service.models.base import StepItem
from generator_service.models.graphs import GraphedSteps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
LONGEST = 24


def bart() -> Any:
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=500, d_model=64, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, init_std=0.3,
            decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=256,
            decoder_start_token_id=2, forced_eos_token_id=None,
        )
    )  # fmt: skip


def t5() -> Any:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=500, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
    )  # fmt: skip


@pytest.fixture(params=[bart, t5])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    torch.manual_seed(1)
    reference = request.param().eval()
    reference.save_pretrained(tmp_path)
    return reference, tmp_path


def random_rows(source: random.Random, count: int) -> list[list[int]]:
    return [[source.randrange(5, 500) for _ in range(source.randrange(3, 120))] for _ in range(count)]


def search_over(model: lean.LeanModel, problems: int, beams: int) -> Search:
    spec = model.spec
    words = ((spec.pad_token_id,),)
    constraints = Constraints(spec.eos_token_id, max_new_tokens=LONGEST, bad_words=words)
    shared: Any = {
        "num_problems": problems, "start_token_id": spec.decoder_start_token_id, "constraints": constraints
    }  # fmt: skip
    return GreedySearch(**shared) if beams == 1 else BeamSearch(options=BeamOptions(beams), **shared)


def decode(model: lean.LeanModel, programs: list[Any]) -> list[Any]:
    """All programs together, as the engine would step them."""
    for program in programs:
        program.start(model, model.encode(program.rows))
    while running := [program for program in programs if not program.is_done]:
        logits = model.step([program.items()[0] for program in running])
        for program, each in zip(running, logits, strict=True):
            program.advance([each])
    return [program.finish() for program in programs]


@pytest.mark.parametrize("beams", [1, 4])
def test_ids_equal_transformers_in_float32(checkpoint: tuple[Any, Path], beams: int) -> None:
    reference, path = checkpoint
    model = lean.load(path, device="cuda")
    peer = reference.to("cuda")
    rows = random_rows(random.Random(beams), 6)
    programs = [
        RagToken([row], torch.zeros(1), search_over(model, 1, beams), TokenProgramOptions(beams)) for row in rows
    ]
    for row, decoded in zip(rows, decode(model, programs), strict=True):
        pad, eos = model.spec.pad_token_id, model.spec.eos_token_id
        ids = peer.generate(
            torch.tensor([row], device="cuda"), num_beams=beams, do_sample=False, max_new_tokens=LONGEST,
            bad_words_ids=[[pad]], min_length=0,
        )[0].tolist()[1:]  # fmt: skip
        expected = ids[: ids.index(eos) + 1] if eos in ids else [token for token in ids if token != pad]
        assert list(decoded.hypotheses[0].token_ids) == expected


def programs_of(model: lean.LeanModel, beams: int) -> list[Any]:
    source = random.Random(3)
    programs: list[Any] = []
    for _ in range(6):
        rows = random_rows(source, 3)
        prior = marginal.normalize_log_prior([source.gauss(0, 1) for _ in rows])
        programs.append(RagToken(rows, prior, search_over(model, 1, beams), TokenProgramOptions(beams)))
        programs.append(RagSequence(rows, prior, search_over(model, 3, beams), SequenceProgramOptions(beams)))
    return programs


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_graphs_are_used_and_give_what_plain_steps_give(checkpoint: tuple[Any, Path], beams: int, dtype: str) -> None:
    model = lean.load(checkpoint[1], device="cuda", dtype=dtype)
    plain = lean.LeanModel(model._network, model.spec)
    graphed, expected = decode(model, programs_of(model, beams)), decode(plain, programs_of(plain, beams))
    steps = model._graphed
    assert isinstance(steps, GraphedSteps)
    assert steps.num_graphs > 0
    if dtype == "float32":
        assert [each.hypotheses[0].token_ids for each in graphed] == [each.hypotheses[0].token_ids for each in expected]


def test_speculation_on_a_gpu_gives_the_same_ids(checkpoint: tuple[Any, Path]) -> None:
    model = lean.load(checkpoint[1], device="cuda")
    rows = random_rows(random.Random(5), 4)
    found = [
        decode(model, [RagToken(rows, torch.zeros(4), search_over(model, 1, 1), TokenProgramOptions(draft_tokens=n))])
        for n in (0, 4)
    ]
    assert found[0][0].hypotheses[0].token_ids == found[1][0].hypotheses[0].token_ids


def test_memory_is_flat_over_many_requests(checkpoint: tuple[Any, Path]) -> None:
    model = lean.load(checkpoint[1], device="cuda")
    rows = random_rows(random.Random(6), 5)

    def ask() -> int:
        state = model.open(model.encode(rows))
        for _ in range(20):
            model.step([StepItem(state, torch.full((1, 5), 7))])
        del state
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    before = [ask() for _ in range(3)][-1]
    assert [ask() for _ in range(20)][-1] <= before
