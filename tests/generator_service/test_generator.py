"""The generator turns a request into an answer with its evidence, and refuses what it cannot do by name."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
    DecodingOptions,
    Delta,
    Explanation,
    GenerationRequest,
    Passage,
    ScoringRequest,
)
from generator_service.scheduler import Budget
from generator_service.text import DeltaText, TextCodec
from serving.errors import InvalidRequest, NotReady, Unimplemented

PASSAGES = (
    Passage("p1", "France", "Paris is the capital of France.", -0.5, 0.9),
    Passage("p2", "", "Berlin is the capital of Germany.", -1.5, 0.4),
    Passage("p3", "", "It has a large river and 2 airports.", -3.0, 0.2),
)
MODELS = [DecodingModel.RAG_SEQUENCE, DecodingModel.RAG_TOKEN, DecodingModel.FUSION_IN_DECODER]


@asynccontextmanager
async def started(tiny: Any, **defaults: Any) -> AsyncIterator[Generator]:
    generator = Generator(
        lambda: tiny.loaded(**defaults), budget=Budget(), limits=Limits(), observer=generator_metrics()
    )
    await generator.start()
    try:
        yield generator
    finally:
        await generator.close()


def ask(passages: Any = PASSAGES, *, explain: Explanation | None = None, **options: Any) -> GenerationRequest:
    explanation = explain or Explanation()
    return GenerationRequest("What is the capital?", passages, DecodingOptions(**options), explanation)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
async def test_an_answer_carries_probability_priors_and_posteriors(tiny: Any, model: Any, beams: int) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(model=model, num_beams=beams, num_return_sequences=beams))
    assert answer.model is model
    assert sum(answer.best.posteriors) == pytest.approx(1.0, abs=1e-5)
    assert sum(math.exp(each) for each in answer.log_priors) == pytest.approx(1.0, abs=1e-5)
    assert answer.best.log_probability < 0
    assert answer.confidence == pytest.approx(math.exp(answer.best.log_probability))
    assert len(answer.hypotheses) == (0 if beams == 1 else beams)
    assert 1 <= answer.num_new_tokens <= 8
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


async def test_given_answers_are_scored_token_by_token_under_either_model(tiny: Any) -> None:
    async with started(tiny) as generator:
        for model in (DecodingModel.RAG_SEQUENCE, DecodingModel.RAG_TOKEN):
            request = ScoringRequest("What is the capital?", PASSAGES, ["Paris", "a river"], model)
            scores = (await generator.score(request)).answers
            assert [token.text.strip() for token in scores[0].tokens] == ["paris", ""]
            for score in scores:
                total = sum(token.share.log_probability for token in score.tokens)
                assert total == pytest.approx(score.log_probability, abs=1e-4)
                assert sum(score.posteriors) == pytest.approx(1.0, abs=1e-5)


async def test_passages_of_little_prior_are_pruned_and_the_mass_is_reported(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(prune_prior_mass=0.1))
        without = await generator.generate(ask(PASSAGES[:2]))
    assert 0 < answer.pruned_prior_mass <= 0.1
    assert answer.best.posteriors[2] == 0.0
    assert answer.log_priors[2] == -math.inf
    assert answer.best.log_probability == pytest.approx(without.best.log_probability, abs=1e-5)


async def test_leaving_out_each_passage_says_what_the_answer_would_be(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(num_beams=2, explain=Explanation(leave_one_out=True)))
        for i, each in enumerate(answer.leave_one_out):
            others = [passage for j, passage in enumerate(PASSAGES) if j != i]
            without = await generator.generate(ask(others, num_beams=2))
            assert each.passage_id == PASSAGES[i].id
            assert each.exact
            assert each.text == without.best.text


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
                assert stopped.ending is Ending.STOP
                assert stopped.best.raw_text == plain.best.raw_text[: plain.best.raw_text.index(stop)].strip()


async def test_bad_words_do_not_appear(tiny: Any) -> None:
    async with started(tiny) as generator:
        plain = await generator.generate(ask(min_new_tokens=5))
        word = next(each for each in plain.best.raw_text.split() if each in tiny.words)
        answer = await generator.generate(ask(min_new_tokens=5, bad_words=[word]))
    assert word not in answer.best.raw_text.split()


async def test_limits_on_lengths_are_kept(tiny: Any) -> None:
    async with started(tiny) as generator:
        answer = await generator.generate(ask(min_new_tokens=5, max_new_tokens=5))
    assert answer.num_new_tokens == 5


_REFUSED = [
    ({"num_beams": 17}, InvalidRequest, "num_beams.*16"),
    ({"max_new_tokens": 513}, InvalidRequest, "max_new_tokens.*512"),
    ({"max_new_tokens": 200}, InvalidRequest, "max_new_tokens is 200.*at most 128"),
    ({"max_new_tokens": 3, "min_new_tokens": 4}, InvalidRequest, "min_new_tokens is 4"),
    ({"num_return_sequences": 2}, InvalidRequest, "num_return_sequences.*1 to 1"),
    ({"stop": ["x" * 65]}, InvalidRequest, r"stop\[0\].*64"),
    ({"stop": ["x"] * 17}, InvalidRequest, "stop.*16"),
    ({"stop": [""]}, InvalidRequest, "stop holds an empty"),
    ({"bad_words": ["x"] * 65}, InvalidRequest, "bad_words.*64"),
    ({"prune_prior_mass": 1.0}, InvalidRequest, "prune_prior_mass"),
    ({"length_penalty": math.nan}, InvalidRequest, "length_penalty"),
    ({"sampling": Sampling()}, InvalidRequest, "sampling.*RAG_SEQUENCE"),
    ({"model": DecodingModel.RAG_TOKEN, "sampling": Sampling(temperature=0.0)}, InvalidRequest, "temperature"),
    ({"model": DecodingModel.RAG_TOKEN, "sampling": Sampling(), "num_beams": 2}, InvalidRequest, "exclude"),
    ({"model": DecodingModel.CLOSED_BOOK}, InvalidRequest, "CLOSED_BOOK takes no passages"),
    ({"unimplemented": ["forced_words"]}, Unimplemented, "decoding.forced_words"),
]


@pytest.mark.parametrize(("options", "error", "message"), _REFUSED)
async def test_options_out_of_range_are_refused_by_name_and_limit(
    tiny: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with started(tiny) as generator:
        with pytest.raises(error, match=message):
            await generator.generate(ask(**options))


async def test_explanations_that_a_way_of_decoding_cannot_give_are_refused(tiny: Any) -> None:
    everything = [
        (DecodingModel.FUSION_IN_DECODER, 1, Explanation(token_posteriors=True), InvalidRequest),
        (DecodingModel.FUSION_IN_DECODER, 1, Explanation(leave_one_out=True), Unimplemented),
        (DecodingModel.RAG_TOKEN, 2, Explanation(leave_one_out=True), Unimplemented),
    ]
    async with started(tiny) as generator:
        for model, beams, explain, error in everything:
            with pytest.raises(error):
                await generator.generate(ask(model=model, num_beams=beams, explain=explain))


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


async def test_answers_to_score_are_bounded(tiny: Any) -> None:
    async with started(tiny) as generator:
        for answers, message in (([], "answers is empty"), (["x"] * 65, "65 answers"), (["a " * 200], "limit is 128")):
            with pytest.raises(InvalidRequest, match=message):
                await generator.score(ScoringRequest("who?", PASSAGES, answers))


async def test_a_generator_that_is_not_loaded_says_so(tiny: Any) -> None:
    generator = Generator(tiny.loaded, budget=Budget(), limits=Limits(), observer=generator_metrics())
    with pytest.raises(NotReady):
        await generator.generate(ask())
    await generator.close()


def test_deltas_hold_back_what_the_next_token_may_change(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = tiny.word_piece().encode("Paris, it's france", add_special_tokens=False)
    delta, whole = DeltaText(codec, ()), codec.decode(ids)
    given = ""
    for end in range(1, len(ids) + 1):
        given += delta.push(ids[:end])
        assert whole.startswith(given)
    assert given + delta.finish(whole) == whole


def test_pieces_of_an_answer_join_to_its_text(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = [*tiny.word_piece().encode("Paris, it's franconian", add_special_tokens=False), 2]
    assert "".join(codec.pieces(ids)) == codec.decode(ids)
    assert len(codec.pieces(ids)) == len(ids)


def test_an_answer_comes_back_in_the_surface_of_the_most_probable_passage(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = tiny.word_piece().encode("france", add_special_tokens=False)
    answer = codec.answer([*ids, 2], PASSAGES, ())
    assert (answer.text, answer.raw) == ("France", "france")


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
