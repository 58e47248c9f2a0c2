"""What confidence is read from: decoding tells it without being changed, and only who asks for more pays for more."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import default_model
from generator_service import convert
from generator_service.confidence import FEATURES, Confidence, Evidence
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.decoding.with_evidence import WithEvidence
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.request import DecodingModel, GenerationRequest
from generator_service.scheduler import Budget
from protos.rag.v1 import common_pb2
from tests.generator_service.asking import MODELS, PASSAGES, ask

ROWS = [[4, 5, 6], [7, 8], [9, 3, 4, 5]]
CLOSED_BOOK = [4, 5]
PRIOR = torch.tensor([0.5, 0.3, 0.2]).log()


def program(kind: type, model: Any) -> Any:
    problems = len(ROWS) if kind is RagSequence else 1
    constraints = Constraints(eos_token_id=2, max_new_tokens=6, min_new_tokens=1)
    search = GreedySearch(num_problems=problems, start_token_id=1, constraints=constraints)
    options = SequenceProgramOptions(num_hypotheses=3) if kind is RagSequence else TokenProgramOptions()
    return kind(ROWS, PRIOR, search, options)


@pytest.mark.parametrize("kind", [RagSequence, RagToken])
def test_evidence_leaves_the_decoding_as_it_is_and_reads_one_row_more(tiny: Any, kind: type) -> None:
    model = tiny.fake()
    plain = tiny.run(model, program(kind, model))
    with_evidence = WithEvidence(program(kind, model), CLOSED_BOOK)
    assert with_evidence.rows == [*ROWS, CLOSED_BOOK]
    assert with_evidence.num_decoder_rows == len(ROWS)
    decoded = tiny.run(model, with_evidence)
    assert replace(decoded, no_answer=(), closed_book=()) == plain


@pytest.mark.parametrize("kind", [RagSequence, RagToken])
def test_the_evidence_is_what_scoring_gives(tiny: Any, kind: type) -> None:
    model = tiny.fake()
    decoded = tiny.run(model, WithEvidence(program(kind, model), CLOSED_BOOK))
    (empty,) = model.score(model.encode(ROWS), [[2]])
    assert decoded.no_answer == pytest.approx(empty[:, 0].tolist(), abs=1e-5)
    scored = model.score(model.encode([CLOSED_BOOK]), [each.token_ids for each in decoded.hypotheses])
    assert decoded.closed_book == pytest.approx([float(each.sum()) for each in scored], abs=1e-5)


def test_several_tokens_a_step_do_not_hide_the_first(tiny: Any) -> None:
    class Drafting:
        rows, num_decoder_rows, is_done = ROWS, 3, False

        def start(self, model: Any, encoded: Any) -> None: ...
        def advance(self, logits: Any) -> list[Any]:
            return []

        def finish(self) -> Any:
            return tiny.run(model, program(RagToken, model))

    model, logits = tiny.fake(), torch.randn(1, 3, 4, 12)
    drafting = WithEvidence(Drafting())  # type: ignore[arg-type]
    drafting.start(model, model.encode(ROWS))
    drafting.advance([logits])
    drafting.advance([torch.zeros(1, 3, 12)])
    wanted = logits[0, :, 0].log_softmax(-1)[:, model.spec.eos_token_id]
    assert drafting.finish().no_answer == pytest.approx(wanted.tolist())


def test_a_forced_first_token_is_no_part_of_the_empty_answer(tiny: Any) -> None:
    model = tiny.fake()
    plain = program(RagToken, model)
    model.spec = replace(model.spec, forced_bos_token_id=5)
    logits = [torch.randn(1, 3, 12) for _ in range(2)]
    with_evidence = WithEvidence(plain)
    with_evidence.start(model, model.encode(ROWS))
    for each in logits:
        with_evidence.advance([each])
    wanted = logits[1][0].log_softmax(-1)[:, model.spec.eos_token_id]
    assert with_evidence.finish().no_answer == pytest.approx(wanted.tolist())


async def generated(tiny: Any, confidence: Confidence, request: GenerationRequest) -> tuple[Any, int]:
    """The answer, and how many rows were encoded for it."""
    loaded = replace(tiny.loaded(), confidence=confidence)
    generator = Generator(lambda: loaded, budget=Budget(), limits=Limits(), observer=generator_metrics())
    await generator.start()
    before = loaded.model.counters["rows_encoded"]
    try:
        return await generator.generate(request), loaded.model.counters["rows_encoded"] - before
    finally:
        await generator.close()


@pytest.mark.parametrize(
    ("features", "num_more"),
    [((), 0), (("no_answer", "log_probability"), 0), (("closed_book_gain",), 1)],
)
async def test_only_the_closed_book_comparison_costs_a_row(tiny: Any, features: Any, num_more: int) -> None:
    confidence = Confidence(features, (1.0,) * len(features))
    answer, encoded = await generated(tiny, confidence, ask())
    plain, _ = await generated(tiny, Confidence(), ask())
    assert encoded == len(PASSAGES) + num_more
    assert (answer.best.text, answer.best.log_probability) == (plain.best.text, plain.best.log_probability)
    assert answer.best.posteriors == plain.best.posteriors


@pytest.mark.parametrize("model", [*MODELS, DecodingModel.CLOSED_BOOK])
async def test_every_feature_is_a_number_under_every_model(tiny: Any, model: DecodingModel) -> None:
    confidence = Confidence(tuple(FEATURES), (0.01,) * len(FEATURES), min_confidence=0.25)
    passages = () if model is DecodingModel.CLOSED_BOOK else PASSAGES
    answer, _ = await generated(tiny, confidence, replace(ask(model=model), passages=passages))
    assert 0.0 < answer.best.confidence < 1.0
    assert convert.generate_response(answer, common_pb2.Provenance()).generation.min_confidence == 0.25


def test_the_features_say_what_their_names_do() -> None:
    evidence = Evidence(
        log_probability=-2.0,
        num_new_tokens=4,
        log_priors=[math.log(0.25), math.log(0.75)],
        posteriors=[0.5, 0.5],
        scores=[0.3, 0.9],
        no_answer=[math.log(0.2), math.log(0.8)],
        closed_book=-5.0,
    )
    values = {name: feature(evidence) for name, feature in FEATURES.items()}
    assert values["log_probability_per_token"] == -0.5
    assert values["no_answer"] == pytest.approx(math.log(0.25 * 0.2 + 0.75 * 0.8))
    assert values["no_answer_in_cited"] == pytest.approx(math.log(0.5))
    assert values["posterior_divergence"] == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert values["closed_book_gain"] == 3.0
    impossible = replace(evidence, log_probability=-math.inf, no_answer=[-math.inf, -math.inf])
    assert all(math.isfinite(FEATURES[name](impossible)) for name in ("log_probability", "no_answer"))


def test_a_threshold_that_is_no_probability_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "confidence.json"
    path.write_text(json.dumps({"features": ["max_score"], "weights": [1], "bias": 0, "min_confidence": 1.5}))
    with pytest.raises(ValueError, match="min_confidence"):
        Confidence.load(path)


def test_the_default_generators_confidence_can_be_read_and_advises_a_threshold() -> None:
    confidence = Confidence.load(default_model.PACK / "generator" / "confidence.json")
    assert confidence.is_calibrated
    assert not confidence.compares_closed_book
    assert 0.0 < confidence.min_confidence < 0.1
