"""What the answer would be without each passage is what decoding without that passage gives."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest

from generator_service.decoding.fused import Fused
from generator_service.decoding.given import ScoreGiven
from generator_service.limits import Limits
from generator_service.options import check_explanation, resolve
from generator_service.planning import PassagePrior, build_program
from generator_service.request import DecodingModel, DecodingOptions, Explanation, Passage
from generator_service.text import TextCodec
from tests.generator_service.asking import MODELS, PASSAGES, ask, started

ALL = Explanation(leave_one_out=True)


def programs(tiny: Any, rows: Any, log_priors: Any, **options: Any) -> Any:
    """What decodes `rows` with leave-one-out, and what decodes any of them without."""
    loaded = tiny.loaded(tiny.fake(vocab_size=len(tiny.word_piece())))
    codec = TextCodec(loaded.tokenizer, loaded.prompt)
    decoding = resolve(
        DecodingOptions(**{"max_new_tokens": 6, **options}), loaded.defaults, Limits(), max_target_tokens=100,
        default_model=DecodingModel.RAG_SEQUENCE,
    )  # fmt: skip

    def program(chosen: list[int], explanation: Explanation) -> Any:
        check_explanation(explanation, decoding)
        prior = prior_of(log_priors, chosen)
        chosen_rows = [rows[i] for i in chosen]
        return build_program(chosen_rows, prior, decoding, explanation, spec=loaded.model.spec, codec=codec)

    return loaded.model, program


def prior_of(log_priors: Any, chosen: list[int]) -> PassagePrior:
    return PassagePrior.of([Passage("", "", "", log_priors[i]) for i in chosen], 0.0)


def log_probability(tiny: Any, model: Any, rows: Any, prior: PassagePrior, ids: Any, decoding: DecodingModel) -> float:
    score_given = functools.partial(ScoreGiven, targets=[ids], per_token=decoding is DecodingModel.RAG_TOKEN)
    fuses = decoding is DecodingModel.FUSION_IN_DECODER
    given = Fused(rows, score_given) if fuses else score_given(rows, prior.log_prior)
    return float(tiny.run(model, given)[0].log_probability)


WAYS = [
    *[{"model": model, "num_beams": beams} for model in MODELS for beams in (1, 3)],
    {"model": DecodingModel.RAG_SEQUENCE, "num_beams": 2, "is_fast": True},
    {"model": DecodingModel.RAG_SEQUENCE, "num_beams": 2, "forced_words": ["paris"]},
    {"model": DecodingModel.RAG_TOKEN, "num_beams": 1, "forced_words": ["paris"]},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_answer_without_a_passage_is_decoded_exactly(tiny: Any, way: dict[str, Any]) -> None:
    flips = set()
    for seed in range(8):
        source = random.Random(seed)
        count = source.randrange(2, 5)
        rows = tiny.rows(source, count)
        log_priors = [source.gauss(0, 1) for _ in rows]
        model, program = programs(tiny, rows, log_priors, **way)
        decoded = tiny.run(model, program(list(range(count)), ALL))
        answer = decoded.hypotheses[0]
        assert answer == tiny.run(model, program(list(range(count)), Explanation())).hypotheses[0]
        assert len(decoded.left_out) == count
        for i, left_out in enumerate(decoded.left_out):
            others = [j for j in range(count) if j != i]
            without = tiny.run(model, program(others, Explanation())).hypotheses[0]
            assert left_out.exact
            assert left_out.token_ids == without.token_ids
            assert left_out.flips == (without.token_ids != answer.token_ids)
            if not way.get("is_fast"):
                present = log_probability(
                    tiny, model, [rows[j] for j in others], prior_of(log_priors, others), answer.token_ids, way["model"]
                )
                assert left_out.log_probability == pytest.approx(present, abs=1e-4)
            flips.add(left_out.flips)
    assert flips == {True, False}


def test_decodings_without_a_passage_encode_nothing_and_share_steps(tiny: Any) -> None:
    rows = tiny.rows(random.Random(1), 4)
    model, program = programs(
        tiny, rows, [0.0] * 4, model=DecodingModel.FUSION_IN_DECODER, num_beams=2, min_new_tokens=6
    )
    tiny.run(model, program(list(range(4)), ALL))
    assert model.counters["rows_encoded"] == 4
    assert model.num_steps == 12


def test_no_more_rows_are_held_than_announced(tiny: Any) -> None:
    rows = tiny.rows(random.Random(2), 12)
    model, program = programs(tiny, rows, [0.0] * 12, model=DecodingModel.RAG_TOKEN, num_beams=4, min_new_tokens=6)
    whole = program(list(range(12)), ALL)
    tiny.run(model, whole)
    assert max(model.rows_per_step) <= whole.num_decoder_rows == 64


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
async def test_leaving_out_each_passage_says_what_the_answer_would_be(tiny: Any, model: Any, beams: int) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(model=model, num_beams=beams, explain=ALL))
        for i, each in enumerate(answer.leave_one_out):
            others = [passage for j, passage in enumerate(PASSAGES) if j != i]
            without = await generator.generate(ask(others, model=model, num_beams=beams))
            assert each.passage_id == PASSAGES[i].id
            assert each.exact
            assert each.text == without.best.text
            assert each.flips == (without.best.raw_text != answer.best.raw_text)


async def test_a_streamed_answer_is_explained_too(tiny: Any) -> None:
    async with started(tiny) as generator:
        events = [event async for event in generator.stream(ask(explain=ALL))]
        whole = await generator.generate(ask(model=DecodingModel.RAG_TOKEN, num_beams=1, explain=ALL))
    assert len(events) > 2
    assert events[-1].leave_one_out == whole.leave_one_out


async def test_a_pruned_passage_changes_nothing_and_does_not_come_back(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(prune_prior_mass=0.1, explain=ALL))
        for i in (0, 1):
            without = await generator.generate(ask([PASSAGES[1 - i]]))
            assert answer.leave_one_out[i].text == without.best.text
    pruned = answer.leave_one_out[2]
    assert (pruned.flips, pruned.exact, pruned.text) == (False, True, answer.best.text)


async def test_of_one_passage_there_is_none_to_leave_out(tiny: Any) -> None:
    async with started(tiny) as generator:
        for model in MODELS:
            answer = await generator.generate(ask(PASSAGES[:1], model=model, num_beams=2, explain=ALL))
            assert list(answer.leave_one_out) == []
