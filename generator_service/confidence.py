"""The calibrated probability that an answer is right: a logistic model over what decoding already knows.

The checkpoint brings the model as `confidence.json`: {"features": [...], "weights": [...], "bias": b,
"min_confidence": t}, fitted on held-out questions; below the threshold t its makers would rather not answer. Without
one, the confidence is p(y|x), which is not calibrated, and there is no threshold.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LEAST = -30.0
"""Log probabilities count no lower than this: what cannot be is no more telling than what is nearly impossible."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an answer. Vectors are in the passages' order; passages that were not read have prior 0.

    Attributes:
        log_probability: log p(y|x).
        num_new_tokens: Of y, end-of-sequence included.
        log_priors: log p(d_i|x).
        posteriors: p(d_i|x,y).
        scores: The passages' raw retrieval scores.
        no_answer: log p of the empty answer given each passage; empty where not looked at.
        closed_book: log p(y) given the question alone; None where not compared.
    """

    log_probability: float
    num_new_tokens: int
    log_priors: Sequence[float]
    posteriors: Sequence[float]
    scores: Sequence[float]
    no_answer: Sequence[float] = ()
    closed_book: float | None = None


FEATURES: Mapping[str, Callable[[Evidence], float]] = {
    "log_probability": lambda e: max(_LEAST, e.log_probability),
    "log_probability_per_token": lambda e: max(_LEAST, e.log_probability) / max(1, e.num_new_tokens),
    "num_new_tokens": lambda e: float(e.num_new_tokens),
    "max_posterior": lambda e: max(e.posteriors, default=0.0),
    "posterior_entropy": lambda e: entropy(e.posteriors),
    "max_prior": lambda e: math.exp(max(e.log_priors, default=-math.inf)),
    "prior_entropy": lambda e: entropy([math.exp(each) for each in e.log_priors]),
    "posterior_divergence": lambda e: divergence(e.posteriors, e.log_priors),
    "max_score": lambda e: max(e.scores, default=0.0),
    "no_answer": lambda e: _log_mean(e.no_answer, [math.exp(each) for each in e.log_priors]),
    "no_answer_in_cited": lambda e: _log_mean(e.no_answer, e.posteriors),
    "closed_book_gain": lambda e: (
        0.0 if e.closed_book is None else max(_LEAST, e.log_probability) - max(_LEAST, e.closed_book)
    ),
}
"""What a `confidence.json` may name."""


def entropy(probabilities: Sequence[float]) -> float:
    """In nats."""
    return -sum(p * math.log(p) for p in probabilities if p > 0.0)


def divergence(posteriors: Sequence[float], log_priors: Sequence[float]) -> float:
    """KL(posterior || prior) in nats: how far the answer moved the weight of the passages."""
    return sum(p * (math.log(p) - q) for p, q in zip(posteriors, log_priors, strict=True) if p > 0.0)


def _log_mean(log_probabilities: Sequence[float], weights: Sequence[float]) -> float:
    mean = sum(w * math.exp(each) for w, each in zip(weights or (1.0,), log_probabilities, strict=False))
    return max(_LEAST, math.log(mean)) if mean > 0.0 else _LEAST


@dataclass(frozen=True, slots=True)
class Confidence:
    """sigmoid(weights . features + bias); no features at all means exp(log_probability)."""

    features: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    bias: float = 0.0
    min_confidence: float = 0.0

    @classmethod
    def load(cls, path: Path) -> "Confidence":
        """Reads `confidence.json`; the uncalibrated fallback where there is no such file.

        Raises:
            ValueError: It names a feature that is not known here, its lists differ in length, or its threshold is no
                probability.
        """
        if not path.exists():
            return cls()
        fields = json.loads(path.read_text(encoding="utf-8"))
        confidence = cls(
            tuple(fields["features"]),
            tuple(float(each) for each in fields["weights"]),
            float(fields["bias"]),
            float(fields.get("min_confidence", 0.0)),
        )
        unknown = sorted(set(confidence.features) - set(FEATURES))
        if unknown:
            raise ValueError(f"{path} names unknown features {unknown}; known: {sorted(FEATURES)}")
        if len(confidence.features) != len(confidence.weights):
            raise ValueError(f"{path} has {len(confidence.features)} features and {len(confidence.weights)} weights")
        if not 0.0 <= confidence.min_confidence <= 1.0:
            raise ValueError(f"{path} has a min_confidence of {confidence.min_confidence}, which is not in [0, 1]")
        return confidence

    @property
    def is_calibrated(self) -> bool:
        """Whether it was fitted."""
        return bool(self.features)

    @property
    def compares_closed_book(self) -> bool:
        """Whether it wants the answer's probability without passages, which costs one more encoder row."""
        return "closed_book_gain" in self.features

    def __call__(self, evidence: Evidence) -> float:
        """In [0, 1]."""
        if not self.features:
            return min(1.0, math.exp(evidence.log_probability))
        return self.of({name: FEATURES[name](evidence) for name in self.features})

    def of(self, values: Mapping[str, float]) -> float:
        """The calibrated confidence, in [0, 1], from the values of its features."""
        logit = self.bias + sum(w * values[name] for name, w in zip(self.features, self.weights, strict=True))
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, logit))))
