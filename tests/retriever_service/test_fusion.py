import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retriever_service.fusion import Fusion, FusionChange, FusionMethod, best, linear, log_prior, reciprocal_rank
from serving.errors import InvalidRequest

scores = arrays(np.float64, st.integers(1, 20), elements=st.floats(-100, 100))
temperatures = st.floats(1e-3, 100)


@given(scores, temperatures)
def test_prior_sums_to_one_and_orders_like_the_scores(values, temperature):
    prior = log_prior(values, temperature)
    assert np.exp(prior).sum() == pytest.approx(1.0)
    order = np.argsort(values)
    assert (np.diff(prior[order]) >= 0).all()


@given(scores, temperatures, st.floats(-1e4, 1e4))
def test_a_constant_added_to_all_scores_changes_no_prior(values, temperature, constant):
    difference = log_prior(values + constant, temperature) - log_prior(values, temperature)
    assert np.abs(difference * temperature).max() < 1e-8


def test_prior_is_finite_at_extreme_scores():
    assert np.isfinite(log_prior(np.array([1e4, -1e4, 0.0]), 1e-3)).all()


def test_prior_equals_the_softmax_of_score_over_temperature():
    values = np.array([0.8, 0.6, 0.1])
    expected = np.exp(values / 0.05) / np.exp(values / 0.05).sum()
    assert np.exp(log_prior(values, 0.05)) == pytest.approx(expected, rel=1e-12)


def test_nothing_retrieved_has_an_empty_prior():
    assert log_prior(np.empty(0), 1.0).shape == (0,)


def test_linear_weighs_raw_scores():
    fused = linear(np.array([0.5, 0.2]), np.array([10.0, 30.0]), Fusion(dense_weight=2.0, lexical_weight=0.1))
    assert fused == pytest.approx([2.0, 3.4])


def test_reciprocal_rank_counts_both_stages_and_nothing_for_an_absent_one():
    fused = reciprocal_rank(np.array([1.0, 2.0, np.inf]), np.array([np.inf, 1.0, np.inf]), Fusion(rrf_k=60))
    assert fused == pytest.approx([1 / 61, 1 / 62 + 1 / 61, 0.0])


@given(st.permutations(range(1, 9)))
def test_reciprocal_rank_orders_as_a_single_stage_does(ranks):
    fused = reciprocal_rank(np.array(ranks, float), np.full(8, np.inf), Fusion(method=FusionMethod.RRF))
    assert np.argsort(-fused).tolist() == np.argsort(ranks).tolist()


def test_equal_scores_come_in_row_order():
    assert best(np.array([1.0, 2.0, 1.0, 2.0]), np.array([9, 8, 3, 4]), 3).tolist() == [3, 1, 2]


@pytest.mark.parametrize("change", [{"dense_weight": -1.0}, {"lexical_weight": float("nan")}, {"rrf_k": 0.0}])
def test_weights_out_of_range_are_refused_by_name(change):
    with pytest.raises(InvalidRequest, match=next(iter(change))):
        FusionChange(**change).apply(Fusion())


def test_a_change_keeps_what_it_does_not_name():
    changed = FusionChange(lexical_weight=0.5).apply(Fusion(dense_weight=3.0))
    assert changed == Fusion(dense_weight=3.0, lexical_weight=0.5)
