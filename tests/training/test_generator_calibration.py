"""The confidence fit recovers a known model, and says how far off it is."""

import numpy as np
import pytest

from training.generator.calibrate import expected_calibration_error, fit_logistic


def test_the_fit_recovers_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, 2))
    chance = 1 / (1 + np.exp(-(features @ np.array([1.5, -0.5]) + 0.3)))
    fit = fit_logistic(features, (rng.random(len(chance)) < chance).astype(np.float64))
    assert fit.weights == pytest.approx((1.5, -0.5), abs=0.1)
    assert fit.bias == pytest.approx(0.3, abs=0.1)
    assert expected_calibration_error(fit.predict(features), chance) < 0.02


def test_separable_examples_still_give_finite_weights() -> None:
    fit = fit_logistic(np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isfinite(fit.weights).all()
    assert fit.predict(np.array([[1.0]]))[0] > 0.9


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    assert expected_calibration_error(np.full(10, 0.9), np.array([1.0] * 6 + [0.0] * 4)) == pytest.approx(0.3)
