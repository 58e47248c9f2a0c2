"""Fitting a confidence model: logistic regression, its cross-validation, and what thresholds cost. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUM_FOLDS = 10


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """p(right) = sigmoid(weights . features + bias)."""

    weights: tuple[float, ...]
    bias: float

    def predict(self, features: Floats) -> Floats:
        """Probabilities (N,) of features (N, F)."""
        logits = np.asarray(features @ np.array(self.weights) + self.bias, dtype=np.float64)
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float64)


def fit_logistic(features: Floats, labels: Floats, *, ridge: float = 1.0, num_steps: int = 50) -> LogisticFit:
    """Maximum likelihood by Newton's method with a ridge on the weights of the standardised features.

    Args:
        features: (N, F).
        labels: 0 or 1, (N,).
        ridge: Its strength, against the sum of the log-likelihoods.
        num_steps: At most so many steps.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-9
    design = np.column_stack([(features - mean) / scale, np.ones(len(features))])
    penalty = np.diag([ridge] * features.shape[1] + [1e-9])
    solution = np.zeros(design.shape[1])
    for _ in range(num_steps):
        probability = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        gradient = design.T @ (probability - labels) + penalty @ solution
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, gradient)
        solution = solution - step
        if np.abs(step).max() < 1e-9:
            break
    weights = solution[:-1] / scale
    return LogisticFit(tuple(float(weight) for weight in weights), float(solution[-1] - weights @ mean))


def cross_validated(features: Floats, labels: Floats, groups: Sequence[str]) -> Floats:
    """Probabilities (N,), each from a fit that saw nothing of the same group (a question and its variants)."""
    folds = {group: number % NUM_FOLDS for number, group in enumerate(dict.fromkeys(groups))}
    fold = np.array([folds[group] for group in groups])
    predicted = np.zeros(len(labels))
    for number in range(NUM_FOLDS):
        held_out = fold == number
        if held_out.any():
            predicted[held_out] = fit_logistic(features[~held_out], labels[~held_out]).predict(features[held_out])
    return predicted


def threshold_losing(probabilities: Floats, labels: Floats, *, ratio: float) -> float:
    """The largest threshold, in steps of 0.005, under which no more than `ratio` of the right answers lie."""
    right = np.sort(probabilities[labels == 1])
    grid = np.arange(0, 201) / 200
    lost = np.searchsorted(right, grid, side="left") / max(1, len(right))
    return float(grid[lost <= ratio].max())
