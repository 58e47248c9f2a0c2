import math

import numpy as np
import pytest

from evaluation.calibration import auroc, measure_calibration, selective_risks


def test_the_calibration_error_weighs_each_bin_by_its_answers():
    measured = measure_calibration([0.95, 0.85, 0.85, 0.15], [1, 1, 0, 0])
    # Bins: 0.95 (right 1), 0.85 twice (right 0.5), 0.15 (right 0).
    assert measured.ece == pytest.approx((1 * 0.05 + 2 * 0.35 + 1 * 0.15) / 4)
    assert [(each.low, each.num, each.right) for each in measured.bins] == [(0.1, 1, 0.0), (0.8, 2, 0.5), (0.9, 1, 1.0)]


def test_a_confidence_of_one_falls_into_the_last_bin():
    assert measure_calibration([1.0], [1]).bins[0].low == 0.9
    assert measure_calibration([1.0], [1]).ece == 0.0


def test_risk_is_the_share_of_wrong_ones_among_the_most_confident():
    risks = selective_risks(np.array([0.1, 0.9, 0.5, 0.7]), np.array([0.0, 1.0, 1.0, 0.0]))
    assert risks == pytest.approx([0.0, 1 / 2, 1 / 3, 2 / 4])
    assert measure_calibration([0.1, 0.9, 0.5, 0.7], [0, 1, 1, 0]).area_under_risk_coverage == pytest.approx(4 / 12)


def test_the_order_of_equal_confidences_does_not_matter():
    right = [1, 0, 0, 1]
    measured = measure_calibration([0.5] * 4, right)
    assert measured == measure_calibration([0.5] * 4, right[::-1])
    assert [point.risk for point in measured.risk_coverage] == [0.5] * 4
    assert measured.auroc == 0.5


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    generator = np.random.default_rng(0)
    confidence, right = generator.integers(0, 6, 40) / 5, generator.integers(0, 2, 40).astype(float)
    pairs = [(a > b) + (a == b) / 2 for a in confidence[right == 1] for b in confidence[right == 0]]
    assert auroc(confidence, right) == pytest.approx(math.fsum(pairs) / len(pairs))


def test_without_right_or_wrong_answers_there_is_no_auroc_and_without_answers_nothing():
    assert measure_calibration([0.5, 0.6], [1, 1]).auroc is None
    assert measure_calibration([0.5, 0.6], [0, 0]).auroc is None
    assert measure_calibration([], []) is None


def test_a_long_curve_is_thinned_out_to_its_end():
    curve = measure_calibration(np.linspace(0, 1, 5000).tolist(), [1.0] * 2500 + [0.0] * 2500).risk_coverage
    assert len(curve) == 100
    assert (curve[-1].coverage, curve[-1].risk) == (1.0, 0.5)
