"""The generator turns a request into an answer with its evidence, and refuses what it cannot do by name."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from generator_service.confidence import FEATURES, Confidence, Evidence
from generator_service.decoding.sampling import Sampling
from generator_service.decoding.search import Ending
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.request import (
    DecodingModel,
    Delta,
    Explanation,
    GenerationRequest,
    Passage,
    ScoringRequest,
)
from generator_service.scheduler import Budget
from generator_service.text import TextCodec
from serving.errors import InvalidRequest, NotReady
from tests.generator_service.asking import MODELS, PASSAGES, ask, started


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
async def test_an_answer_carries_probability_priors_and_posteriors(tiny: Any, model: Any, beams: int) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(model=model, num_beams=beams, num_return_sequences=beams))
    assert answer.model is model
    assert sum(answer.best.posteriors) == pytest.approx(1.0, abs=1e-5)
    assert sum(math.exp(each) for each in answer.log_priors) == pytest.approx(1.0, abs=1e-5)
    assert answer.best.log_probability < 0
    assert answer.best.confidence == pytest.approx(math.exp(answer.best.log_probability))
    assert len(answer.hypotheses) == (0 if beams == 1 else beams)
    assert 1 <= answer.best.num_new_tokens <= 8
    rows = TextCodec(tiny.word_piece(), tiny.loaded().prompt).rows("What is the capital?", PASSAGES)
    assert answer.num_input_tokens == sum(map(len, rows))
    if beams > 1:
        scores = [each.log_probability for each in answer.hypotheses]
        assert answer.hypotheses[0] == answer.best
        if model is DecodingModel.RAG_SEQUENCE:
            assert scores == sorted(scores, reverse=True)


async def test_the_defaults_are_rag_sequence_and_rag_token_greedy_when_streaming(tiny: Any) -> None:
    async with started(tiny, num_beams=3) as generator:
        assert (await generator.generate(ask())).model is DecodingModel.RAG_SEQUENCE
        events = [event async for event in generator.stream(ask())]
    assert events[-1].model is DecodingModel.RAG_TOKEN
    assert len(events) > 1


async def test_streamed_text_adds_up_to_the_raw_answer_and_tokens_to_the_attributions(tiny: Any) -> None:
    async with started(tiny) as generator:
        for question in ("what?", "where is it?", "who?", "2 airports"):
            request = GenerationRequest(question, PASSAGES, explanation=Explanation(token_posteriors=True))
            events = [event async for event in generator.stream(request)]
            *deltas, final = events
            assert all(isinstance(each, Delta) for each in deltas)
            assert "".join(each.text for each in deltas) == final.best.raw_text
            assert [token.token_id for each in deltas for token in each.tokens] == [t.token_id for t in final.tokens]
            assert "".join(token.text for token in final.tokens).strip() == final.best.raw_text
            total = sum(token.share.log_probability for token in final.tokens)
            assert total == pytest.approx(final.best.log_probability, abs=1e-5)


async def test_a_stream_without_certain_tokens_sends_the_generation_alone(tiny: Any) -> None:
    async with started(tiny) as generator:
        for options in ({"model": DecodingModel.RAG_SEQUENCE}, {"num_beams": 2}):
            assert len([event async for event in generator.stream(ask(**options))]) == 1


async def test_a_stream_that_is_given_up_frees_the_engine(tiny: Any) -> None:
    async with started(tiny) as generator:
        stream = generator.stream(ask(min_new_tokens=100, max_new_tokens=120))
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(5):
            while generator_metrics().running._value.get():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


async def test_token_posteriors_of_rag_sequence_end_in_the_posterior_of_the_answer(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(explain=Explanation(token_posteriors=True)))
    total = sum(token.share.log_probability for token in answer.tokens)
    assert total == pytest.approx(answer.best.log_probability, abs=1e-4)
    assert answer.tokens[-1].share.posteriors == pytest.approx(answer.best.posteriors, abs=1e-4)


async def test_passages_of_little_prior_are_pruned_and_the_mass_is_reported(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(prune_prior_mass=0.1))
        without = await generator.generate(ask(PASSAGES[:2]))
    assert 0 < answer.pruned_prior_mass <= 0.1
    assert answer.best.posteriors[2] == 0.0
    assert answer.log_priors[2] == -math.inf
    assert answer.best.log_probability == pytest.approx(without.best.log_probability, abs=1e-5)


async def test_closed_book_reads_no_passage(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask((), model=DecodingModel.CLOSED_BOOK))
    assert (list(answer.best.posteriors), list(answer.log_priors)) == ([], [])


async def test_sampling_is_repeatable_by_seed_and_returns_the_samples_best_first(tiny: Any) -> None:
    async with started(tiny) as generator:
        request = ask(model=DecodingModel.RAG_TOKEN, sampling=Sampling(seed=5), num_return_sequences=4)
        first, second = await generator.generate(request), await generator.generate(request)
    assert first.hypotheses == second.hypotheses
    scores = [each.log_probability for each in first.hypotheses]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


async def test_the_answer_ends_before_the_first_stop_string(tiny: Any) -> None:
    async with started(tiny) as generator:
        for model, beams in (
            (DecodingModel.RAG_TOKEN, 1),
            (DecodingModel.RAG_SEQUENCE, 1),
            (DecodingModel.RAG_TOKEN, 2),
        ):
            plain = await generator.generate(ask(model=model, num_beams=beams, min_new_tokens=6))
            stop = plain.best.raw_text.split()[1]
            stopped = await generator.generate(ask(model=model, num_beams=beams, min_new_tokens=6, stop=[stop]))
            assert stop not in stopped.best.raw_text
            if beams == 1 and model is DecodingModel.RAG_TOKEN:
                assert stopped.best.ending is Ending.STOP
                assert stopped.best.raw_text == plain.best.raw_text[: plain.best.raw_text.index(stop)].strip()


async def test_bad_words_do_not_appear(tiny: Any) -> None:
    async with started(tiny) as generator:
        plain = await generator.generate(ask(min_new_tokens=5))
        word = next(each for each in plain.best.raw_text.split() if each in tiny.words)
        answer = await generator.generate(ask(min_new_tokens=5, bad_words=[word]))
    assert word not in answer.best.raw_text.split()


@pytest.mark.parametrize("model", [*MODELS, DecodingModel.CLOSED_BOOK])
async def test_forced_words_appear_greedy_or_not_streamed_or_not(tiny: Any, model: Any) -> None:
    passages = () if model is DecodingModel.CLOSED_BOOK else PASSAGES
    words = ["Berlin", "a large river"]
    async with started(tiny) as generator:
        for beams in (0, 1, 3):
            plain = ask(passages, model=model, num_beams=beams)
            forced = ask(passages, model=model, num_beams=beams, forced_words=words)
            answer = await generator.generate(forced)
            assert all(word.lower() in answer.best.raw_text for word in words)
            *deltas, streamed = [event async for event in generator.stream(forced)]
            assert (deltas, streamed.best) == ([], answer.best)
            free = await generator.generate(plain)
            word = free.best.raw_text[:3]
            if word in tiny.words:
                same = await generator.generate(ask(passages, model=model, num_beams=beams, forced_words=[word]))
                assert same.best == free.best


@pytest.mark.parametrize("model", [*MODELS, DecodingModel.CLOSED_BOOK])
@pytest.mark.parametrize("sampling", [None, Sampling(seed=1)])
async def test_candidates_are_distinct_answers_each_with_its_evidence(tiny: Any, model: Any, sampling: Any) -> None:
    if sampling is not None and model is DecodingModel.RAG_SEQUENCE:
        return
    passages = () if model is DecodingModel.CLOSED_BOOK else PASSAGES
    async with started(tiny) as generator:
        answer = await generator.generate(
            ask(passages, model=model, sampling=sampling, num_candidates=5, max_new_tokens=2)
        )
    assert answer.hypotheses[0] == answer.best
    assert len({each.raw_text for each in answer.hypotheses}) == len(answer.hypotheses)
    assert 2 <= len(answer.hypotheses) <= 5
    for each in answer.hypotheses:
        assert each.log_probability < 0
        assert each.confidence == pytest.approx(math.exp(each.log_probability))
        assert 1 <= each.num_new_tokens <= 2
        assert sum(each.posteriors) == pytest.approx(1.0 if passages else 0.0, abs=1e-5)


async def test_more_hypotheses_than_candidates_may_be_asked_for(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(num_beams=4, num_candidates=2, num_return_sequences=4))
        assert len(answer.hypotheses) == 4
        with pytest.raises(InvalidRequest, match="num_return_sequences is 5; it must be from 1 to 4"):
            await generator.generate(ask(num_beams=3, num_candidates=4, num_return_sequences=5))


async def test_limits_on_lengths_are_kept(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(min_new_tokens=5, max_new_tokens=5))
    assert answer.best.num_new_tokens == 5


_REFUSED = [
    ({"num_beams": 17}, "num_beams.*16"),
    ({"max_new_tokens": 513}, "max_new_tokens.*512"),
    ({"max_new_tokens": 200}, "max_new_tokens is 200.*at most 128"),
    ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens is 4"),
    ({"num_return_sequences": 2}, "num_return_sequences.*1 to 1"),
    ({"stop": ["x" * 65]}, r"stop\[0\].*64"),
    ({"stop": ["x"] * 17}, "stop.*16"),
    ({"stop": [""]}, "stop holds an empty"),
    ({"bad_words": ["x"] * 65}, "bad_words.*64"),
    ({"prune_prior_mass": 1.0}, "prune_prior_mass"),
    ({"length_penalty": math.nan}, "length_penalty"),
    ({"sampling": Sampling()}, "sampling.*RAG_SEQUENCE"),
    ({"model": DecodingModel.RAG_TOKEN, "sampling": Sampling(temperature=0.0)}, "temperature"),
    ({"model": DecodingModel.RAG_TOKEN, "sampling": Sampling(), "num_beams": 2}, "exclude"),
    ({"model": DecodingModel.CLOSED_BOOK}, "CLOSED_BOOK takes no passages"),
    ({"forced_words": ["paris"] * 17}, "forced_words.*16"),
    ({"forced_words": ["東京"]}, r"forced_words\[0\].*cannot write"),
    ({"forced_words": ["paris", "berlin", "is"], "max_new_tokens": 2}, "need 3 tokens.*room for 2"),
    ({"model": DecodingModel.RAG_TOKEN, "sampling": Sampling(), "forced_words": ["x"]}, "forced_words"),
    ({"num_candidates": 1}, "num_candidates is 1; it must be from 2 to 16"),
    ({"num_candidates": 17}, "num_candidates.*16"),
]


@pytest.mark.parametrize(("options", "message"), _REFUSED)
async def test_options_out_of_range_are_refused_by_name_and_limit(
    tiny: Any, options: dict[str, Any], message: str
) -> None:
    async with started(tiny) as generator:
        with pytest.raises(InvalidRequest, match=message) as refused:
            await generator.generate(ask(**options))
        assert refused.value.field


async def test_explanations_that_a_way_of_decoding_cannot_give_are_refused(tiny: Any) -> None:
    async with started(tiny) as generator:
        for model, explain, message in (
            (DecodingModel.FUSION_IN_DECODER, Explanation(token_posteriors=True), "no posteriors per token"),
            (DecodingModel.CLOSED_BOOK, Explanation(leave_one_out=True), "CLOSED_BOOK reads no passages"),
        ):
            with pytest.raises(InvalidRequest, match=message):
                await generator.generate(ask((), model=model, explain=explain))


_BAD_INPUTS = [
    (" ", PASSAGES, "question is blank"),
    ("x" * 8193, PASSAGES, "question has 8193 bytes; the limit is 8192"),
    ("who?", (), "at least 1 passage"),
    ("who?", [Passage("", "", "x")] * 101, "101 passages; the limit is 100"),
    ("who?", [Passage("", "", "x" * 65537)], r"passages\[0\].text has 65537 bytes; the limit is 65536"),
    ("who?", [Passage("", "x" * 1025, "x")], r"passages\[0\].title has 1025 bytes"),
    ("who?", [Passage("", "", "x", math.nan)], r"passages\[0\].log_prior"),
    ("who?", [Passage("", "", "x", -math.inf)], "every log_prior"),
]


@pytest.mark.parametrize(("question", "passages", "message"), _BAD_INPUTS)
async def test_bad_input_is_refused_by_field_and_limit(tiny: Any, question: str, passages: Any, message: str) -> None:
    async with started(tiny) as generator:
        with pytest.raises(InvalidRequest, match=message) as refused:
            await generator.generate(GenerationRequest(question, passages))
        assert refused.value.field
        with pytest.raises(InvalidRequest, match=message):
            await generator.score(ScoringRequest(question, passages, ["x"]))


async def test_a_generator_that_is_not_loaded_says_so(tiny: Any) -> None:
    generator = Generator(tiny.loaded, budget=Budget(), limits=Limits(), observer=generator_metrics())
    with pytest.raises(NotReady):
        await generator.generate(ask())
    await generator.close()


def test_a_fitted_confidence_is_the_logistic_of_its_features(tmp_path: Path) -> None:
    evidence = Evidence(-1.0, 4, [math.log(0.25), math.log(0.75)], [0.5, 0.5], [0.3, 0.9])
    fields = {"features": ["log_probability", "max_score", "posterior_entropy"], "weights": [1, 2, -1], "bias": 0.5}
    (tmp_path / "confidence.json").write_text(json.dumps(fields))
    logit = -1.0 + 2 * 0.9 - math.log(2) + 0.5
    assert Confidence.load(tmp_path / "confidence.json")(evidence) == pytest.approx(1 / (1 + math.exp(-logit)))
    assert Confidence.load(tmp_path / "absent.json")(evidence) == pytest.approx(math.exp(-1))
    assert all(math.isfinite(feature(evidence)) for feature in FEATURES.values())
    (tmp_path / "confidence.json").write_text(json.dumps({**fields, "features": ["mood", "x", "y"]}))
    with pytest.raises(ValueError, match="mood"):
        Confidence.load(tmp_path / "confidence.json")
