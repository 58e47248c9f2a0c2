"""The calibrated probability that an answer is right: a logistic model over what decoding already knows.

The checkpoint brings the model as `confidence.json`: {"features": [...], "weights": [...], "bias": b}, fitted on
held-out questions. Without one, the confidence is p(y|x), which is not calibrated.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an answer; `scores` are the passages' raw retrieval scores."""

    log_probability: float
    num_new_tokens: int
    log_priors: Sequence[float]
    posteriors: Sequence[float]
    scores: Sequence[float]


FEATURES: Mapping[str, Callable[[Evidence], float]] = {
    "log_probability": lambda e: e.log_probability,
    "log_probability_per_token": lambda e: e.log_probability / max(1, e.num_new_tokens),
    "num_new_tokens": lambda e: float(e.num_new_tokens),
    "max_posterior": lambda e: max(e.posteriors, default=0.0),
    "posterior_entropy": lambda e: entropy(e.posteriors),
    "max_prior": lambda e: math.exp(max(e.log_priors, default=-math.inf)),
    "prior_entropy": lambda e: entropy([math.exp(each) for each in e.log_priors]),
    "max_score": lambda e: max(e.scores, default=0.0),
}
"""What a `confidence.json` may name."""


def entropy(probabilities: Sequence[float]) -> float:
    """In nats."""
    return -sum(p * math.log(p) for p in probabilities if p > 0.0)


@dataclass(frozen=True, slots=True)
class Confidence:
    """sigmoid(weights . features + bias); no features at all means exp(log_probability)."""

    features: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    bias: float = 0.0

    @classmethod
    def load(cls, path: Path) -> "Confidence":
        """Reads `confidence.json`; the uncalibrated fallback where there is no such file.

        Raises:
            ValueError: it names a feature that is not known here, or its lists differ in length.
        """
        if not path.exists():
            return cls()
        fields = json.loads(path.read_text(encoding="utf-8"))
        confidence = cls(
            tuple(fields["features"]), tuple(float(each) for each in fields["weights"]), float(fields["bias"])
        )
        unknown = sorted(set(confidence.features) - set(FEATURES))
        if unknown:
            raise ValueError(f"{path} names unknown features {unknown}; known: {sorted(FEATURES)}")
        if len(confidence.features) != len(confidence.weights):
            raise ValueError(f"{path} has {len(confidence.features)} features and {len(confidence.weights)} weights")
        return confidence

    @property
    def is_calibrated(self) -> bool:
        """Whether it was fitted."""
        return bool(self.features)

    def __call__(self, evidence: Evidence) -> float:
        """In [0, 1]."""
        if not self.features:
            return min(1.0, math.exp(evidence.log_probability))
        values = [FEATURES[name](evidence) for name in self.features]
        logit = self.bias + sum(w * v for w, v in zip(self.weights, values, strict=True))
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, logit))))
