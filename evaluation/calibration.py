"""Whether a confidence keeps what it promises: how far it is from the share that is right, and how well it orders.

Pure. `confidences` (N,) lie in [0, 1]; `is_right` (N,) holds 0 or 1 for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_BINS = 10
MAX_CURVE_POINTS = 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The answers with a confidence in [low, high); the last bin holds 1, too."""

    low: float
    high: float
    num: int
    mean_confidence: float
    right: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The risk of answering only the most confident share of the questions."""

    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How good a confidence is.

    Attributes:
        num: Answers measured.
        ece: Expected calibration error over the bins, in [0, 1].
        auroc: Probability that a right answer has more confidence than a wrong one; None without both.
        area_under_risk_coverage: Mean risk over all coverages; lower is better.
        bins: Those that hold an answer.
        risk_coverage: The curve, thinned out, by growing coverage.
    """

    num: int
    ece: float
    auroc: float | None
    area_under_risk_coverage: float
    bins: Sequence[ReliabilityBin]
    risk_coverage: Sequence[CurvePoint]


def measure_calibration(confidences: Sequence[float], is_right: Sequence[float]) -> Calibration | None:
    """Everything about a confidence; None over no answers."""
    if not confidences:
        return None
    confidence, right = np.asarray(confidences, np.float64), np.asarray(is_right, np.float64)
    bins, risks = reliability(confidence, right), selective_risks(confidence, right)
    num = len(risks)
    shown = np.unique(np.linspace(1, num, min(num, MAX_CURVE_POINTS)).round().astype(int))
    return Calibration(
        num=num,
        ece=_mean_gap(bins),
        auroc=auroc(confidence, right),
        area_under_risk_coverage=float(risks.mean()),
        bins=bins,
        risk_coverage=[CurvePoint(int(count) / num, float(risks[count - 1])) for count in shown],
    )


def reliability(confidence: Floats, right: Floats) -> list[ReliabilityBin]:
    """Bins of equal width, as the expected calibration error takes them; empty ones are left out.

    Source: Guo et al. 2017, section 2.
    """
    indexes = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    return [
        ReliabilityBin(
            low=index / NUM_BINS,
            high=(index + 1) / NUM_BINS,
            num=int((indexes == index).sum()),
            mean_confidence=float(confidence[indexes == index].mean()),
            right=float(right[indexes == index].mean()),
        )
        for index in np.unique(indexes).tolist()
    ]


def expected_calibration_error(confidence: Floats, right: Floats) -> float:
    """Mean gap between confidence and share of right ones over the bins, weighted by count.

    Source: Guo et al. 2017, equation 3.
    """
    return _mean_gap(reliability(confidence, right))


def _mean_gap(bins: Sequence[ReliabilityBin]) -> float:
    num = sum(each.num for each in bins)
    return sum(each.num * abs(each.right - each.mean_confidence) for each in bins) / num


def selective_risks(confidence: Floats, right: Floats) -> Floats:
    """Share of wrong ones among the n most confident, n = 1..N: float64 (N,). Equal confidences share their mean.

    Source: Geifman & El-Yaniv 2017, risk-coverage curve; their area is the mean of these.
    """
    values, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    mean_right = np.bincount(group, weights=right, minlength=len(values)) / size
    num_right = np.cumsum(np.repeat(mean_right, size))
    risks: Floats = 1 - num_right / np.arange(1, len(right) + 1)
    return risks


def auroc(confidence: Floats, right: Floats) -> float | None:
    """Area under the ROC curve, where `right` holds 1; None when all or none are right."""
    positives, negatives = confidence[right == 1], confidence[right == 0]
    return area_under_curve(positives, negatives) if len(positives) and len(negatives) else None


def area_under_curve(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> float:
    """Probability that a random positive scores above a random negative, ties counting half (ROC AUC).

    Source: Hanley & McNeil 1982 (the Mann-Whitney statistic).
    """
    ordered = np.sort(np.asarray(negatives))
    wanted = np.asarray(positives)
    below = np.searchsorted(ordered, wanted, side="left")
    not_above = np.searchsorted(ordered, wanted, side="right")
    return float((below + not_above).mean() / 2 / len(ordered))
