"""The marginals are exact: reference tests 6 to 11 of the RAG formulas, by brute force and by symmetry."""

from __future__ import annotations

import math
import random
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
from tests.generator_service.every_answer import every_answer

ROWS = [[3, 4, 9], [5, 6], [7]]
PRIOR = [0.3, -1.0, 1.2]


def score(tiny: Any, model: Any, targets: Any, *, per_token: bool, rows: Any = ROWS, prior: Any = PRIOR) -> Any:
    return tiny.run(model, ScoreGiven(rows, marginal.normalize_log_prior(prior), targets, per_token=per_token))


def sequence(
    tiny: Any, model: Any, beams: int, *, length: int = 6, rows: Any = ROWS, prior: Any = PRIOR, **options: Any
) -> Any:
    constraints = Constraints(model.spec.eos_token_id, max_new_tokens=length)
    shared: Any = {"num_problems": len(rows), "start_token_id": 1, "constraints": constraints}
    search: Any = GreedySearch(**shared) if beams == 1 else BeamSearch(options=BeamOptions(beams, 0.0), **shared)
    kept = SequenceProgramOptions(beams, 10_000, **options)
    return tiny.run(model, RagSequence(rows, marginal.normalize_log_prior(prior), search, kept))


def test_a_one_token_answer_has_the_same_probability_under_both_models(tiny: Any) -> None:
    for token in range(12):
        (left,) = score(tiny, tiny.fake(), [[token]], per_token=True)
        (right,) = score(tiny, tiny.fake(), [[token]], per_token=False)
        assert left.log_probability == pytest.approx(right.log_probability, abs=1e-6)
        assert left.posteriors == pytest.approx(right.posteriors, abs=1e-6)


def test_the_step_distribution_sums_to_one() -> None:
    log_probs = torch.randn(4, 3, 50).mul(5).log_softmax(-1)
    prior = marginal.normalize_log_prior(PRIOR)
    totals = marginal.step_marginal(prior, log_probs).exp().sum(-1)
    torch.testing.assert_close(totals, torch.ones(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("per_token", [True, False])
def test_all_answers_together_have_probability_one(tiny: Any, per_token: bool) -> None:
    answers = every_answer(5, 2, 3)
    scores = score(tiny, tiny.fake(vocab_size=5), answers, per_token=per_token)
    assert sum(math.exp(each.log_probability) for each in scores) == pytest.approx(1.0, abs=1e-5)


def test_thorough_decoding_with_enough_beams_finds_the_best_of_every_answer(tiny: Any) -> None:
    model = tiny.fake(vocab_size=5)
    answers = every_answer(5, 2, 3)
    scores = score(tiny, model, answers, per_token=False)
    best = max(range(len(answers)), key=lambda i: scores[i].log_probability)
    decoded = sequence(tiny, model, 5**3, length=3)
    assert decoded.hypotheses[0].token_ids == answers[best]
    assert decoded.hypotheses[0].log_probability == pytest.approx(scores[best].log_probability, abs=1e-5)


@pytest.mark.parametrize("per_token", [True, False])
def test_permuting_passages_permutes_the_posterior_and_nothing_else(tiny: Any, per_token: bool) -> None:
    order = [2, 0, 1]
    (before,) = score(tiny, tiny.fake(), [[4, 7, 2]], per_token=per_token)
    (after,) = score(
        tiny, tiny.fake(), [[4, 7, 2]], per_token=per_token,
        rows=[ROWS[i] for i in order], prior=[PRIOR[i] for i in order],
    )  # fmt: skip
    assert after.log_probability == pytest.approx(before.log_probability, abs=1e-6)
    assert after.posteriors == pytest.approx([before.posteriors[i] for i in order], abs=1e-6)


def test_a_constant_added_to_every_score_changes_nothing() -> None:
    shifted = marginal.normalize_log_prior([score + 1e6 for score in PRIOR])
    torch.testing.assert_close(shifted, marginal.normalize_log_prior(PRIOR), atol=1e-6, rtol=0)


@pytest.mark.parametrize("per_token", [True, False])
def test_a_hopeless_score_equals_removing_the_passage(tiny: Any, per_token: bool) -> None:
    targets = [[4, 7, 2], [8, 2]]
    hopeless = score(tiny, tiny.fake(), targets, per_token=per_token, prior=[0.3, -1e9, 1.2])
    removed = score(tiny, tiny.fake(), targets, per_token=per_token, rows=[ROWS[0], ROWS[2]], prior=[0.3, 1.2])
    for left, right in zip(hopeless, removed, strict=True):
        assert left.log_probability == pytest.approx(right.log_probability, abs=1e-6)
        assert [left.posteriors[0], left.posteriors[2]] == pytest.approx(right.posteriors, abs=1e-6)


def test_a_duplicate_passage_counts_twice() -> None:
    prior = marginal.normalize_log_prior(PRIOR).exp()
    doubled = marginal.normalize_log_prior([*PRIOR, PRIOR[0]]).exp()
    weight = float(prior[0])
    assert float(doubled[0] + doubled[3]) == pytest.approx(2 * weight / (1 + weight), abs=1e-6)


def test_fast_scores_never_exceed_thorough_ones_and_bound_the_same_hypotheses(tiny: Any) -> None:
    for seed in range(20):
        source = random.Random(seed)
        rows = tiny.rows(source, source.randrange(1, 5), vocab_size=12)
        prior = [source.gauss(0, 2) for _ in rows]
        for beams in (1, 3):
            fast = sequence(tiny, tiny.fake(), beams, rows=rows, prior=prior, is_thorough=False)
            full = sequence(tiny, tiny.fake(), beams, rows=rows, prior=prior)
            exact = {each.token_ids: each.log_probability for each in full.hypotheses}
            assert exact.keys() == {each.token_ids for each in fast.hypotheses}
            for each in fast.hypotheses:
                assert each.log_probability <= exact[each.token_ids] + 1e-6


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_scores_stay_finite_with_bfloat16_logits(tiny: Any, scale: float) -> None:
    model = tiny.fake(dtype=torch.bfloat16, sharpness=100.0)
    decoded = sequence(tiny, model, 3, prior=[scale, 0.0, -scale], leave_one_out=True)
    assert all(math.isfinite(each.log_probability) for each in decoded.hypotheses)
    assert sum(decoded.hypotheses[0].posteriors) == pytest.approx(1.0, abs=1e-5)


def test_leaving_a_passage_out_equals_decoding_without_it(tiny: Any) -> None:
    flips = 0
    for seed in range(30):
        source = random.Random(seed)
        rows = tiny.rows(source, 3, vocab_size=12)
        prior = [source.gauss(0, 1) for _ in rows]
        decoded = sequence(tiny, tiny.fake(), 2, rows=rows, prior=prior, leave_one_out=True)
        for i, left_out in enumerate(decoded.left_out):
            others = [j for j in range(3) if j != i]
            without = sequence(tiny, tiny.fake(), 2, rows=[rows[j] for j in others], prior=[prior[j] for j in others])
            assert left_out.exact
            assert left_out.token_ids == without.hypotheses[0].token_ids
            assert left_out.flips == (left_out.token_ids != decoded.hypotheses[0].token_ids)
            flips += left_out.flips
    assert flips > 0


def test_greedy_rag_token_knows_whether_removing_a_passage_changes_the_answer(tiny: Any) -> None:
    outcomes = set()
    for seed in range(30):
        source = random.Random(100 + seed)
        rows = tiny.rows(source, 3, vocab_size=12)
        prior = [source.gauss(0, 1) for _ in rows]

        def decode(chosen: list[int], rows: Any = rows, prior: Any = prior, **options: Any) -> Any:
            search = GreedySearch(num_problems=1, start_token_id=1, constraints=Constraints(2, max_new_tokens=6))
            log_prior = marginal.normalize_log_prior([prior[i] for i in chosen])
            program = RagToken([rows[i] for i in chosen], log_prior, search, TokenProgramOptions(**options))
            return tiny.run(tiny.fake(), program)

        decoded = decode([0, 1, 2], leave_one_out=True)
        for i, left_out in enumerate(decoded.left_out):
            without = decode([j for j in range(3) if j != i]).hypotheses[0].token_ids
            assert left_out.flips == (without != decoded.hypotheses[0].token_ids)
            assert left_out.exact == (not left_out.flips)
            outcomes.add(left_out.flips)
    assert outcomes == {True, False}


def test_pruning_keeps_the_step_probabilities_within_the_reported_bound() -> None:
    source = random.Random(3)
    for _ in range(200):
        prior = marginal.normalize_log_prior([source.gauss(0, 2) for _ in range(source.randrange(1, 8))])
        log_probs = torch.randn(len(prior), 20).mul(3).log_softmax(-1)
        limit = source.uniform(0, 0.9)
        kept, mass = marginal.prune(prior, limit)
        assert kept
        assert mass <= limit
        full = marginal.step_marginal(prior, log_probs).exp()
        pruned = marginal.step_marginal(prior[kept].log_softmax(0), log_probs[kept]).exp()
        assert torch.all(full >= (1 - mass) * pruned - 1e-5)
        assert torch.all(full <= (1 - mass) * pruned + mass + 1e-5)


def test_token_shares_of_a_sequence_add_up_to_its_log_probability(tiny: Any) -> None:
    (given,) = score(tiny, tiny.fake(), [[4, 7, 9, 2]], per_token=False)
    assert sum(share.log_probability for share in given.shares) == pytest.approx(given.log_probability, abs=1e-5)
    assert given.shares[-1].posteriors == pytest.approx(given.posteriors, abs=1e-5)
