"""Identities of the RAG formulas: gradients by autograd, symmetries of decoding, and the limits of one passage.

Reference tests 1, 4, 5, 8, 9, 11 and 13; the others are in test_marginal, test_decoding_against_transformers,
test_engine and test_lean_engine.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.given import ScoreGiven
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.request import DecodingModel, Explanation
from tests.generator_service.asking import MODELS, PASSAGES, ask, started


def decode(
    tiny: Any, model: Any, rows: Any, scores: Any, *, per_token: bool, beams: int, penalty: float = 1.0, length: int = 6
) -> Any:
    constraints = Constraints(model.spec.eos_token_id, length, bad_words=((model.spec.pad_token_id,),))
    start = model.spec.decoder_start_token_id
    shared: Any = {
        "num_problems": 1 if per_token else len(rows), "start_token_id": start, "constraints": constraints
    }  # fmt: skip
    options = BeamOptions(beams, penalty)
    search: Any = GreedySearch(**shared) if beams == 1 else BeamSearch(options=options, **shared)
    prior = marginal.normalize_log_prior(scores)
    if per_token:
        return tiny.run(model, RagToken(rows, prior, search, TokenProgramOptions(beams, beams)))
    return tiny.run(model, RagSequence(rows, prior, search, SequenceProgramOptions(beams, 99)))


def log_probability(scores: torch.Tensor, token_log_probs: torch.Tensor, *, per_token: bool) -> torch.Tensor:
    """log p(y|x) from raw scores (N,) and token log-probabilities (N, U)."""
    log_prior = torch.log_softmax(scores, 0)
    if per_token:
        return marginal.token_log_probability(log_prior, token_log_probs)
    return marginal.sequence_log_probability(log_prior, token_log_probs.sum(-1))


@pytest.mark.parametrize("per_token", [True, False])
def test_the_gradient_of_the_loss_is_prior_less_posterior(per_token: bool) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        num_passages, num_tokens = random.Random(seed).choice([(1, 4), (3, 1), (5, 7)])
        temperature = 0.5 + seed / 10
        raw = torch.randn(num_passages, dtype=torch.float64, requires_grad=True)
        token_log_probs = torch.randn(num_passages, num_tokens, dtype=torch.float64).mul(3).requires_grad_()
        (-log_probability(raw / temperature, token_log_probs, per_token=per_token)).backward()
        log_prior = torch.log_softmax(raw.detach() / temperature, 0)
        fixed = token_log_probs.detach()
        if per_token:
            posterior = marginal.token_posterior(log_prior, fixed)
            expected = num_tokens * (log_prior.exp() - posterior) / temperature
            by_token = -torch.softmax(fixed + log_prior[:, None], 0)
        else:
            posterior = marginal.sequence_posterior(log_prior, fixed.sum(-1))
            expected = (log_prior.exp() - posterior) / temperature
            by_token = -posterior[:, None].expand(-1, num_tokens)
        torch.testing.assert_close(raw.grad, expected)
        torch.testing.assert_close(token_log_probs.grad, by_token)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("num_passages", range(1, 6))
def test_loss_and_gradient_equal_those_of_transformers(
    tiny: Any, family: str, num_passages: int, per_token: bool
) -> None:
    source = random.Random(num_passages)
    reference = tiny.family(family, num_passages)
    model = tiny.adapt(reference)
    spec = model.spec
    rows = tiny.rows(source, num_passages)
    target = [*(source.randrange(5, tiny.vocab) for _ in range(5)), spec.eos_token_id]
    ids, mask = tiny.padded(rows, spec.pad_token_id)
    ours = torch.tensor([source.gauss(0, 2) for _ in rows], requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    token_log_probs = model.score(model.encode(rows), [target])[0].clone()
    (-log_probability(ours, token_log_probs, per_token=per_token)).backward()
    peer = tiny.rag(reference, num_passages, per_token=per_token)
    labels = torch.tensor([[spec.decoder_start_token_id, *target]])
    loss = peer(
        context_input_ids=ids, context_attention_mask=mask, doc_scores=theirs[None], labels=labels, n_docs=num_passages
    ).loss.sum()
    loss.backward()
    prior = marginal.normalize_log_prior(ours.tolist())
    (score,) = tiny.run(model, ScoreGiven(rows, prior, [target], per_token=per_token))
    assert score.log_probability == pytest.approx(-float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("beams", [1, 2, 4])
def test_of_one_passage_both_models_give_the_same_answer_without_a_length_penalty(
    tiny: Any, family: str, beams: int
) -> None:
    for seed in range(4):
        model = tiny.adapt(tiny.family(family, seed))
        rows = tiny.rows(random.Random(seed), 1)
        token = decode(tiny, model, rows, [0.7], per_token=True, beams=beams, penalty=0.0).hypotheses
        sequence = decode(tiny, model, rows, [0.7], per_token=False, beams=beams, penalty=0.0).hypotheses
        assert [each.token_ids for each in token] == [each.token_ids for each in sequence]
        for left, right in zip(token, sequence, strict=True):
            assert left.log_probability == pytest.approx(right.log_probability, abs=1e-4)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_order_of_passages_changes_no_answer(tiny: Any, per_token: bool, beams: int) -> None:
    for seed in range(6):
        source = random.Random(seed)
        model = tiny.adapt(tiny.bart(seed))
        rows = tiny.rows(source, 4)
        scores = [source.gauss(0, 1) for _ in rows]
        order = source.sample(range(4), 4)
        before = decode(tiny, model, rows, scores, per_token=per_token, beams=beams)
        after = decode(
            tiny, model, [rows[i] for i in order], [scores[i] for i in order], per_token=per_token, beams=beams
        )
        assert before.hypotheses[0].token_ids == after.hypotheses[0].token_ids
        assert before.hypotheses[0].log_probability == pytest.approx(after.hypotheses[0].log_probability, abs=1e-4)
        permuted = [before.hypotheses[0].posteriors[i] for i in order]
        assert after.hypotheses[0].posteriors == pytest.approx(permuted, abs=1e-4)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("beams", [1, 3])
def test_shifted_hopeless_and_duplicate_scores_decode_as_the_formula_says(
    tiny: Any, per_token: bool, beams: int
) -> None:
    for seed in range(6):
        source = random.Random(seed)
        model = tiny.adapt(tiny.bart(seed))
        rows = tiny.rows(source, 3)
        scores = [source.gauss(0, 1) for _ in rows]

        def answer(rows: Any, scores: Any, model: Any = model) -> tuple[Any, float]:
            best = decode(tiny, model, rows, scores, per_token=per_token, beams=beams).hypotheses[0]
            return best.token_ids, best.log_probability

        ids, log_p = answer(rows, scores)
        weighed = answer(rows, [scores[0] + math.log(2), *scores[1:]])
        for other, expected in (
            (answer(rows, [score + 1000.0 for score in scores]), (ids, log_p)),
            (answer([*rows, rows[0]], [*scores, scores[0]]), weighed),
        ):
            assert other[0] == expected[0]
            assert other[1] == pytest.approx(expected[1], abs=1e-3)
        if per_token:
            hopeless = answer([*rows, [9, 9, 9]], [*scores, -1e9])
            assert hopeless[0] == ids
            assert hopeless[1] == pytest.approx(log_p, abs=1e-4)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("beams", [1, 3])
def test_extreme_scores_stay_finite_with_bfloat16_weights(tiny: Any, per_token: bool, beams: int) -> None:
    model = tiny.adapt(tiny.bart(3).bfloat16())
    for scores in ([1e4, 0.0, -1e4], [-1e4, 1e4, 1e4]):
        decoded = decode(tiny, model, tiny.rows(random.Random(1), 3), scores, per_token=per_token, beams=beams)
        for each in decoded.hypotheses:
            assert math.isfinite(each.log_probability)
            assert sum(each.posteriors) == pytest.approx(1.0, abs=1e-5)


async def test_requests_of_every_kind_together_get_what_they_get_alone(tiny: Any) -> None:
    def requests() -> list[Any]:
        extras: list[dict[str, Any]] = [
            {}, {"forced_words": ["paris"]}, {"num_candidates": 3}, {"explain": Explanation(leave_one_out=True)},
            {"stop": ["e"]},
        ]  # fmt: skip
        asked = [ask(model=model, num_beams=beams, **extra) for model in MODELS for beams in (1, 3) for extra in extras]
        return [*asked, ask((), model=DecodingModel.CLOSED_BOOK, forced_words=["paris"]), ask(PASSAGES[:1])]

    async with started(tiny) as generator:
        alone = [await generator.generate(each) for each in requests()]
        together = await asyncio.gather(*(generator.generate(each) for each in requests()))
    for one, other in zip(alone, together, strict=True):
        assert replace(other, timings=one.timings) == one
