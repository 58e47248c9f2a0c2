"""Signs that retrieval and generation stop learning from each other: the numbers, and when to warn.

A prior that puts all its mass on one passage, a posterior that equals the prior, and few distinct passages for many
questions are what a collapsed retriever looks like. Source: Lewis et al. 2020, appendix H ("retrieval collapse").
"""

import logging
import math
from collections.abc import Mapping

from torch import Tensor

_SMOOTHING = 0.98
_LEAST = -1e9  # Stands for log 0, so that 0 log 0 is 0.
_MIN_STEPS = 20  # Before that, a mean says little.


def prior_entropy(prior: Tensor) -> Tensor:
    """Entropy in nats of each log prior of (B, K); between 0 and ln K."""
    mass = prior.exp()
    return -(mass * prior.clamp(min=_LEAST)).sum(-1)


def posterior_kl(prior: Tensor, posterior: Tensor) -> Tensor:
    """KL(posterior || prior) in nats for a posterior (B, K) and a log prior (B, K)."""
    return (posterior * (posterior.log().clamp(min=_LEAST) - prior.clamp(min=_LEAST))).sum(-1)


def distinct_per_thousand(places: Tensor) -> float:
    """Different passages among the hits (Q, K), per 1,000 questions."""
    return 1000 * len(set(places.flatten().tolist())) / len(places)


class CollapseMonitor:
    """Warns, once for each time that a running mean goes below its bound. Keeps no part in the training.

    Args:
        num_passages: K of each question.
        min_entropy_ratio: bound of the prior's entropy, as a share of ln K.
        min_kl: bound of KL(posterior || prior), nats.
        min_distinct_ratio: bound of the distinct passages, as a share of all hits.
    """

    def __init__(
        self,
        num_passages: int,
        *,
        min_entropy_ratio: float = 0.05,
        min_kl: float = 0.005,
        min_distinct_ratio: float = 0.1,
    ) -> None:
        self._num_passages = num_passages
        self._bounds = {
            "prior_entropy": (min_entropy_ratio * math.log(num_passages), "the prior puts all mass on one passage"),
            "posterior_kl": (min_kl, "answers do not tell the passages apart: the retriever learns nothing"),
        }
        self._min_distinct = min_distinct_ratio * 1000 * num_passages
        self._means: dict[str, float] = {}
        self._num_steps = 0
        self._warned: set[str] = set()

    def observe(self, shown: Mapping[str, float]) -> None:
        """Take in a step's numbers."""
        self._num_steps += 1
        for name, (bound, meaning) in self._bounds.items():
            before = self._means.get(name, shown[name])
            self._means[name] = _SMOOTHING * before + (1 - _SMOOTHING) * shown[name]
            if self._num_steps >= _MIN_STEPS:
                self._check(name, self._means[name], bound, meaning)

    def observe_distinct(self, distinct: float, num_stored: int) -> None:
        """Take in the distinct passages found per 1,000 held-out questions, of ``num_stored`` that there are."""
        bound = min(self._min_distinct, 0.5 * num_stored)
        self._check("distinct_passages_per_1k", distinct, bound, "many questions find the same few passages")

    def _check(self, name: str, value: float, bound: float, meaning: str) -> None:
        if value >= bound:
            self._warned.discard(name)
        elif name not in self._warned:
            self._warned.add(name)
            logging.warning("collapse: %s is %.3g, below %.3g: %s", name, value, bound, meaning)
