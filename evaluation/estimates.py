"""Means with their uncertainty, and whether two runs over the same questions differ. Pure and reproducible."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
NUM_PERMUTATIONS = 10_000
_DRAWS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `num` questions with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    num: int


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean with its percentile bootstrap interval. Of differences question by question, it is the paired one.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    sample = np.asarray(values, np.float64)
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWS_AT_ONCE // sample.size)
    sizes = [min(rows, NUM_RESAMPLES - start) for start in range(0, NUM_RESAMPLES, rows)]
    means = [sample[generator.integers(0, sample.size, (size, sample.size))].mean(axis=1) for size in sizes]
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Estimate(float(sample.mean()), float(low), float(high), int(sample.size))


def permutation_p_value(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test: each difference's sign is as likely turned as not.

    The observed signs count as one of the permutations, so that the value is never 0.

    Source: Noreen 1989; Smucker, Allan & Carterette 2007.
    """
    nonzero = np.asarray([each for each in differences if each], np.float64)
    if not nonzero.size:
        return 1.0
    observed = abs(nonzero.sum()) * (1 - 1e-9)  # Sums are as far as rounding lets them be equal.
    generator = np.random.default_rng(seed)
    num_left, num_as_extreme = NUM_PERMUTATIONS, 0
    while num_left:
        rows = min(num_left, max(1, _DRAWS_AT_ONCE // nonzero.size))
        is_turned = generator.integers(0, 2, (rows, nonzero.size), np.int8)
        sums = nonzero.sum() - 2 * (is_turned @ nonzero)
        num_as_extreme += int((abs(sums) >= observed).sum())
        num_left -= rows
    return (1 + num_as_extreme) / (1 + NUM_PERMUTATIONS)
