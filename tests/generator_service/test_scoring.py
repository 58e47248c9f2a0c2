"""Scores of given answers: the probability that decoding reports for the same tokens, under every model."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from generator_service.decoding import marginal
from generator_service.decoding.fused import Fused
from generator_service.decoding.given import ScoreGiven
from generator_service.decoding.search import Ending
from generator_service.limits import Limits
from generator_service.options import resolve
from generator_service.planning import PassagePrior, build_program
from generator_service.request import DecodingModel, DecodingOptions, Explanation, Passage, ScoringRequest
from generator_service.text import TextCodec
from serving.errors import InvalidRequest
from tests.generator_service.asking import MODELS, PASSAGES, ask, started

EVERY = [*MODELS, DecodingModel.CLOSED_BOOK]


def passages_of(model: DecodingModel) -> Any:
    return () if model is DecodingModel.CLOSED_BOOK else PASSAGES


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("model", EVERY)
@pytest.mark.parametrize("family", ["fake", "bart", "t5"])
def test_decoded_tokens_score_as_decoding_says(tiny: Any, family: str, model: Any, beams: int) -> None:
    for seed in range(3):
        source = random.Random(seed)
        vocab = len(tiny.word_piece())
        seq2seq = tiny.fake(vocab_size=vocab) if family == "fake" else tiny.adapt(
            tiny.family(family, seed, vocab_size=vocab)
        )  # fmt: skip
        loaded = tiny.loaded(seq2seq)
        rows = tiny.rows(source, 1 if model is DecodingModel.CLOSED_BOOK else 3)
        log_priors = [source.gauss(0, 1) for _ in rows]
        prior = PassagePrior.of([Passage("", "", "", each) for each in log_priors], 0.0)
        options = DecodingOptions(model=model, num_beams=beams, num_return_sequences=beams)
        decoding = resolve(options, loaded.defaults, Limits(), max_target_tokens=60, default_model=model)
        codec = TextCodec(loaded.tokenizer, loaded.prompt)
        program = build_program(rows, prior, decoding, Explanation(), spec=seq2seq.spec, codec=codec)
        hypotheses = tiny.run(seq2seq, program).hypotheses
        targets = [each.token_ids for each in hypotheses]
        score_given = functools.partial(ScoreGiven, targets=targets, per_token=model is DecodingModel.RAG_TOKEN)
        fuses = model is DecodingModel.FUSION_IN_DECODER
        given = Fused(rows, score_given) if fuses else score_given(rows, prior.log_prior)
        for hypothesis, score in zip(hypotheses, tiny.run(seq2seq, given), strict=True):
            assert score.log_probability == pytest.approx(hypothesis.log_probability, abs=1e-4)
            if model in (DecodingModel.RAG_SEQUENCE, DecodingModel.RAG_TOKEN):
                assert score.posteriors == pytest.approx(hypothesis.posteriors, abs=1e-4)


@pytest.mark.parametrize("model", EVERY)
async def test_an_answers_own_text_scores_as_generated(tiny: Any, model: Any) -> None:
    """Where the tokenizer writes the text with the tokens that were generated, and the answer ended by itself."""
    seq2seq = tiny.fake(vocab_size=len(tiny.word_piece()))
    seq2seq.spec = replace(seq2seq.spec, forced_eos_token_id=seq2seq.spec.eos_token_id)
    async with started(tiny, model=seq2seq) as generator:
        asked = ask(passages_of(model), model=model, forced_words=["paris berlin"], max_new_tokens=3)
        hypothesis = (await generator.generate(asked)).best
        assert (hypothesis.raw_text, hypothesis.ending) == ("paris berlin", Ending.END_OF_SEQUENCE)
        request = ScoringRequest(asked.question, passages_of(model), [hypothesis.raw_text], model)
        (score,) = (await generator.score(request)).answers
    assert score.log_probability == pytest.approx(hypothesis.log_probability, abs=1e-4)
    assert score.posteriors == pytest.approx(hypothesis.posteriors, abs=1e-4)
    total = sum(token.share.log_probability for token in score.tokens)
    assert total == pytest.approx(score.log_probability, abs=1e-4)


@pytest.mark.parametrize("model", EVERY)
async def test_a_score_has_what_its_model_knows(tiny: Any, model: Any) -> None:
    passages = passages_of(model)
    async with started(tiny) as generator:
        request = ScoringRequest("What is the capital?", passages, ["Paris", "a river"], model)
        scores = (await generator.score(request)).answers
    assert [token.text.strip() for token in scores[0].tokens] == ["paris", ""]
    for score in scores:
        assert score.log_probability < 0
        assert sum(score.posteriors) == pytest.approx(1.0 if passages else 0.0, abs=1e-5)
        if model in (DecodingModel.RAG_SEQUENCE, DecodingModel.RAG_TOKEN):
            assert len(score.passage_log_probabilities) == 3
            assert all(sum(token.share.posteriors) == pytest.approx(1.0, abs=1e-5) for token in score.tokens)
        else:
            assert list(score.passage_log_probabilities) == []
            assert all(not token.share.posteriors for token in score.tokens)


async def test_a_question_is_scored_under_each_passage_alone(tiny: Any) -> None:
    question = "What is the capital of France?"
    async with started(tiny) as generator:
        (score,) = (await generator.score(ScoringRequest(question, PASSAGES, scores_question=True))).answers
        for passage, expected in zip(PASSAGES, score.passage_log_probabilities, strict=True):
            (alone,) = (await generator.score(ScoringRequest(question, [passage], scores_question=True))).answers
            assert alone.log_probability == pytest.approx(expected, abs=1e-4)
        loaded = tiny.loaded()
        codec = TextCodec(loaded.tokenizer, loaded.prompt)
        row = codec.passage_row(PASSAGES[0])
        assert codec.decode(row).strip() == "france : paris is the capital of france."
        target = codec.target(question, eos_token_id=loaded.model.spec.eos_token_id, forced_bos_token_id=None)
        log_probs = loaded.model.score(loaded.model.encode([row]), [target])[0]
        assert score.passage_log_probabilities[0] == pytest.approx(float(log_probs.sum()), abs=1e-4)
        log_prior = marginal.normalize_log_prior([passage.log_prior for passage in PASSAGES])
        total = torch.logsumexp(torch.tensor(score.passage_log_probabilities) + log_prior, 0)
        assert score.log_probability == pytest.approx(float(total), abs=1e-4)
        for extra in ({"answers": ["x"]}, {"model": DecodingModel.RAG_TOKEN}):
            with pytest.raises(InvalidRequest, match="score_question takes neither") as refused:
                await generator.score(ScoringRequest(question, PASSAGES, scores_question=True, **extra))
            assert refused.value.field == "score_question"
        with pytest.raises(InvalidRequest, match=r"input.question has 151 tokens; the limit is 128"):
            await generator.score(ScoringRequest("a " * 150, PASSAGES, scores_question=True))


async def test_answers_to_score_are_bounded(tiny: Any) -> None:
    async with started(tiny) as generator:
        for answers, message in (([], "answers is empty"), (["x"] * 65, "65 answers"), (["a " * 200], "limit is 128")):
            with pytest.raises(InvalidRequest, match=message):
                await generator.score(ScoringRequest("who?", PASSAGES, answers))
        with pytest.raises(InvalidRequest, match="CLOSED_BOOK takes no passages"):
            await generator.score(ScoringRequest("who?", PASSAGES, ["x"], DecodingModel.CLOSED_BOOK))


async def test_a_passage_without_prior_is_not_read(tiny: Any) -> None:
    passages = [*PASSAGES[:2], Passage("p3", "", "Berlin", -math.inf)]
    async with started(tiny) as generator:
        (score,) = (await generator.score(ScoringRequest("who?", passages, ["Paris"]))).answers
    assert score.posteriors[2] == 0.0
    assert score.passage_log_probabilities[2] == -math.inf
