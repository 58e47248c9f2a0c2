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
        ece=sum(each.num * abs(each.right - each.mean_confidence) for each in bins) / num,
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
    """Area under the ROC curve by ranks; equal confidences count half. None when all or none are right.

    Source: Hanley & McNeil 1982 (the Mann-Whitney statistic).
    """
    num_right = right.sum()
    num_wrong = len(right) - num_right
    if not num_right or not num_wrong:
        return None
    _, group, size = np.unique(confidence, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2
    return float(((mean_rank[group] * right).sum() - num_right * (num_right + 1) / 2) / (num_right * num_wrong))
