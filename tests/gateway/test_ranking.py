import math

import numpy as np
import pytest

from gateway.ranking import (
    CandidateWeights,
    GeneratorRerank,
    RerankMethod,
    log_odds_of_an_answer,
    rank_candidates,
    rerank_by_answerability,
    rerank_by_likelihood,
    retrieval_scores,
)

RANDOM = np.random.default_rng(7)
CANDIDATES = RANDOM.normal(size=(3, 8)).astype(np.float32)
PASSAGES = RANDOM.normal(size=(4, 8)).astype(np.float32)
PASSAGES /= np.linalg.norm(PASSAGES, axis=1, keepdims=True)


@pytest.mark.parametrize("is_cosine", [True, False])
def test_a_candidates_score_is_the_log_sum_of_its_scaled_scores_under_the_collections_metric(is_cosine):
    found = retrieval_scores(CANDIDATES, PASSAGES, temperature=0.5, is_cosine=is_cosine)
    for candidate, score in zip(CANDIDATES, found, strict=True):
        length = math.sqrt(sum(float(x) ** 2 for x in candidate)) if is_cosine else 1.0
        terms = [math.exp(float(candidate @ passage) / length / 0.5) for passage in PASSAGES]
        assert score == pytest.approx(math.log(sum(terms)), abs=1e-5)


def test_large_scores_over_a_small_temperature_stay_finite():
    found = retrieval_scores(CANDIDATES * 1e4, PASSAGES, temperature=1e-3, is_cosine=False)
    assert np.isfinite(found).all()


def test_the_weights_decide_between_generator_and_encoder():
    log_probabilities, scores = [-1.0, -2.0], [0.0, 1.5]
    assert [c.index for c in rank_candidates(log_probabilities, scores, CandidateWeights())] == [1, 0]
    assert [c.index for c in rank_candidates(log_probabilities, scores, CandidateWeights(2.0, 1.0))] == [0, 1]
    best = rank_candidates(log_probabilities, scores, CandidateWeights(1.0, 2.0))[0]
    assert (best.index, best.retrieval_score, best.ranking_score) == (1, 1.5, 1.0)


def test_equal_candidates_keep_the_generators_order():
    assert [c.index for c in rank_candidates([-1.0, -1.0], [0.5, 0.5], CandidateWeights())] == [0, 1]


def by(method, top_k, **given):
    return GeneratorRerank(RerankMethod(method), num_candidates=10, top_k=top_k, **given)


def test_reranked_hits_have_the_posterior_of_bayes_rule_as_prior():
    hits = rerank_by_likelihood([-9.0, -3.0, -4.0, -3.0], by("QUESTION_LIKELIHOOD", 3))
    assert [hit.index for hit in hits] == [1, 3, 2]
    weights = [math.exp(-3.0), math.exp(-3.0), math.exp(-4.0)]
    assert [math.exp(hit.log_prior) for hit in hits] == pytest.approx([w / sum(weights) for w in weights])


def test_a_temperature_flattens_the_reranked_prior():
    hits = rerank_by_likelihood([-3.0, -5.0], by("QUESTION_LIKELIHOOD", 2, temperature=2.0))
    assert hits[0].log_prior - hits[1].log_prior == pytest.approx(1.0)


def test_hits_under_the_least_score_are_dropped_even_if_none_is_left():
    assert [h.index for h in rerank_by_likelihood([-3.0, -5.0], by("QUESTION_LIKELIHOOD", 2, min_score=-4.0))] == [0]
    assert rerank_by_likelihood([-3.0, -5.0], by("QUESTION_LIKELIHOOD", 2, min_score=0.0)) == ()


SCORES, TEMPERATURE = np.array([0.9, 0.8, 0.5]), 0.05
LOG_PRIORS = SCORES / TEMPERATURE - np.logaddexp.reduce(SCORES / TEMPERATURE)


def by_answerability(probabilities_of_none, **given):
    return rerank_by_answerability(
        np.log(probabilities_of_none), LOG_PRIORS, by("ANSWERABILITY", 3, **given), first_score=0.9, temperature=0.05
    )


def test_answerability_adds_weighted_log_odds_to_the_score_and_the_prior_is_as_sharp_as_the_retrievers():
    none = np.array([0.75, 0.5, 0.1])
    hits = by_answerability(none, weight=0.2)
    odds = np.log((1 - none) / none)
    scores = SCORES + 0.2 * odds
    assert [hit.index for hit in hits] == [2, 1, 0]
    assert [hit.score for hit in hits] == pytest.approx(scores[[2, 1, 0]].tolist())
    assert [hit.rerank_score for hit in hits] == pytest.approx(odds[[2, 1, 0]].tolist())
    log_priors = scores / TEMPERATURE - np.logaddexp.reduce(scores / TEMPERATURE)
    assert [hit.log_prior for hit in hits] == pytest.approx(log_priors[[2, 1, 0]].tolist())


def test_a_weight_of_nothing_leaves_the_retrievers_ranking_scores_and_prior():
    hits = by_answerability([0.9, 0.1, 0.1])
    assert [hit.index for hit in hits] == [0, 1, 2]
    assert [hit.score for hit in hits] == pytest.approx(SCORES.tolist())
    assert [hit.log_prior for hit in hits] == pytest.approx(LOG_PRIORS.tolist())


def test_certainty_either_way_is_finite():
    assert log_odds_of_an_answer([0.0, -math.inf]) == pytest.approx([-13.8155, 30.0], abs=1e-3)
