import math

import numpy as np
import pytest

from evaluation.datasets import Gold, Question
from evaluation.pools import Pool, fetch_pools
from evaluation.tuning import Scoring, measure, rank, tune
from rag_client import Passage, Provenance, Retrieval, RetrievedPassage
from retriever_service.fusion import Fusion, FusionMethod, linear, reciprocal_rank

PRESENT = Scoring("linear", 1.0, 0.0, 60.0, 0.05)


def make_pools(num=300, seed=0):
    """The relevant passage is told by dense + 0.1 * lexical, and the likelihood is right at temperature 0.2."""
    rng = np.random.default_rng(seed)
    for i in range(num):
        dense, lexical = rng.normal(size=12) * 0.2, rng.exponential(size=12) * 3
        logits = (dense + 0.1 * lexical) / 0.2
        relevant = rng.choice(12, p=np.exp(logits - np.logaddexp.reduce(logits)))
        yield Pool(
            f"q{i}",
            dense,
            lexical,
            1.0 + np.argsort(np.argsort(-dense)),
            1.0 + np.argsort(np.argsort(-lexical)),
            np.arange(12) == relevant,
        )


POOLS = list(make_pools())


def test_scores_are_those_of_the_retriever():
    pool = POOLS[0]
    fusion = Fusion(FusionMethod.LINEAR, 0.5, 0.3, 7.0)
    scores, prior = rank(pool, Scoring("linear", 0.5, 0.3, 7.0, 1.0))
    assert scores.tolist() == prior.tolist() == linear(pool.dense, pool.lexical, fusion).tolist()
    scores, prior = rank(pool, Scoring("rrf", 0.5, 0.3, 7.0, 1.0))
    assert scores.tolist() == reciprocal_rank(pool.dense_rank, pool.lexical_rank, fusion).tolist()
    assert prior is pool.dense


def test_measures_are_those_of_the_first_relevant_passage():
    ranks = np.arange(1.0, 5.0)
    pool = Pool("q", np.array([4.0, 3.0, 2.0, 1.0]), np.zeros(4), ranks, ranks, np.array([False, True, False, True]))
    quality = measure([pool], Scoring("linear", 1.0, 0.0, 60.0, 1.0), top_k=3)
    expected = math.log(math.exp(4) + math.exp(3) + math.exp(2)) - 3
    assert (quality.reciprocal_ranks[0], quality.hits[0]) == (0.5, 1.0)
    assert quality.losses[0] == pytest.approx(expected)
    missed = measure([pool], Scoring("linear", 1.0, 0.0, 60.0, 1.0), top_k=1)
    assert (missed.reciprocal_ranks[0], missed.hits[0]) == (0.5, 0.0)
    assert np.isnan(missed.losses[0])


def test_weights_and_temperature_are_found_again():
    tuning = tune(POOLS, PRESENT, top_k=12, fits_fusion=True, fits_temperature=True)
    assert tuning.after.method == "linear"
    assert 0.04 < tuning.after.lexical_weight / tuning.after.dense_weight < 0.25
    assert 0.1 < tuning.after.temperature < 0.4
    assert tuning.changes["MRR"].difference.low > 0
    assert tuning.changes["-log p(relevant)"].difference.high < 0
    assert tuning.num_fitted + tuning.num_held_out == len(POOLS)


def test_only_what_is_asked_for_changes():
    weights = tune(POOLS, PRESENT, top_k=5, fits_fusion=True, fits_temperature=False).after
    assert (weights.temperature, weights.lexical_weight > 0) == (0.05, True)
    temperature = tune(POOLS, PRESENT, top_k=5, fits_fusion=False, fits_temperature=True).after
    assert (temperature.lexical_weight, temperature.temperature != 0.05) == (0.0, True)


def test_what_does_not_help_the_held_out_questions_is_not_kept():
    noise = [
        Pool(p.question_id, p.dense, p.lexical, p.dense_rank, p.lexical_rank, np.roll(p.is_relevant, i))
        for i, p in enumerate(make_pools(60, seed=3))
    ]
    for seed in range(5):
        tuning = tune(
            list(make_pools(40, seed)) + noise[40:], PRESENT, top_k=5, fits_fusion=True, fits_temperature=True
        )
        assert tuning.changes["MRR"].difference.value + tuning.changes["recall@k"].difference.value >= 0


def test_where_nothing_is_gained_the_present_scoring_stays():
    best = tune(POOLS, PRESENT, top_k=5, fits_fusion=True, fits_temperature=True).after
    assert tune(POOLS, best, top_k=5, fits_fusion=True, fits_temperature=True).after == best
    hidden = [
        Pool(p.question_id, -np.arange(12.0), p.lexical * 0, p.dense_rank, p.lexical_rank, np.arange(12) == 11)
        for p in POOLS[:60]
    ]
    assert tune(hidden, PRESENT, top_k=5, fits_fusion=False, fits_temperature=True).after == PRESENT


def test_the_same_questions_give_the_same_scoring():
    first, second = (tune(POOLS[:60], PRESENT, top_k=5, fits_fusion=True, fits_temperature=True) for _ in range(2))
    assert first.after == second.after


def test_too_few_questions_and_questions_on_something_else_are_refused():
    with pytest.raises(ValueError, match="19 questions have a known answer; 20"):
        tune(POOLS[:19], PRESENT, top_k=5, fits_fusion=True, fits_temperature=True)
    lost = [
        Pool(p.question_id, p.dense, p.lexical, p.dense_rank, p.lexical_rank, np.zeros(12, np.bool_)) for p in POOLS
    ]
    with pytest.raises(ValueError, match="top_k is 26; it must be 1 to 25"):
        tune(POOLS, PRESENT, top_k=26, fits_fusion=True, fits_temperature=True)
    with pytest.raises(ValueError, match="on this collection"):
        tune(lost, PRESENT, top_k=5, fits_fusion=True, fits_temperature=True)


class FakeClient:
    """Ranks four passages by the stage that the fusion leaves; the lexical stage does not know "d"."""

    def __init__(self):
        self.scores = {"a": (0.9, 1.0), "b": (0.8, 7.0), "c": (0.7, 3.0), "d": (0.6, 0.0)}
        self.num_calls = 0

    def retrieve_batch(self, queries, *, fusion, top_k, **options):
        self.num_calls += 1
        stage = 0 if fusion.lexical_weight == 0 else 1
        order = sorted(self.scores, key=lambda id_: -self.scores[id_][stage])[:3]
        hits = tuple(
            RetrievedPassage(Passage(id_, f"text of {id_}"), rank_, 0.0, 0.0, *self.scores[id_])
            for rank_, id_ in enumerate(order, start=1)
        )
        return [Retrieval(hits, Provenance()) for _ in queries]


def test_a_pool_holds_both_stages_with_their_ranks_and_what_is_relevant():
    client, done = FakeClient(), []
    questions = [
        Question("1", "x", gold=Gold(frozenset({"b"}))),
        Question("2", "x", answers=("of c",)),
        Question("3", "unanswerable"),
    ]
    first, second = fetch_pools(client, "c", questions, on_progress=done.append)
    assert first.dense.tolist() == [0.9, 0.8, 0.7]
    assert first.lexical.tolist() == [1.0, 7.0, 3.0]
    assert first.dense_rank.tolist() == [1, 2, 3]
    assert first.lexical_rank.tolist() == [3, 1, 2]
    assert first.is_relevant.tolist() == [False, True, False]
    assert second.is_relevant.tolist() == [False, False, True]
    assert (client.num_calls, done) == (2, [2])
    client.scores["a"] = (0.9, 0.0)
    (pool,) = fetch_pools(client, "c", questions[:1], on_progress=done.append)
    assert math.isinf(pool.lexical_rank[0])
