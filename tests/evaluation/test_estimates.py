from itertools import product

import pytest

from evaluation.estimates import bootstrap, permutation_p_value


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_more_questions():
    few, many = bootstrap([0.0, 1.0] * 10), bootstrap([0.0, 1.0] * 1000)
    assert few.value == many.value == 0.5
    assert few.low < many.low < 0.5 < many.high < few.high
    assert bootstrap([0.0, 1.0] * 10) == few
    assert bootstrap([1.0, 1.0]).low == 1.0


@pytest.mark.parametrize("differences", [[1.0, 1.0, 1.0, -1.0, 0.0], [0.3, 0.2, -0.1, 0.5, 0.1, 0.2]])
def test_the_permutation_test_agrees_with_trying_every_sign(differences):
    observed = abs(sum(differences)) - 1e-9
    signed = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
              for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    exact = sum(each >= observed for each in signed) / len(signed)
    assert permutation_p_value(differences) == pytest.approx(exact, abs=0.02)


def test_no_difference_is_no_evidence_and_many_on_one_side_are_much():
    assert permutation_p_value([0.0, 0.0]) == 1.0
    assert permutation_p_value([1.0] * 30) == pytest.approx(1 / 10_001)
    assert permutation_p_value([1.0, -1.0] * 30) == 1.0
