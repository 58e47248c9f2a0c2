"""Several retrievals as one: passages under a weighted sum of their priors. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.stages import Retrieval


def mix(found: Sequence[Retrieval], log_weights: Sequence[float]) -> Retrieval:
    """The passages of all retrievals under the mixture of their priors, the most probable first.

    p(d) = sum_j omega_j p(d|x_j), omega the normalised weights of the retrievals that found anything. An equal passage
    of several retrievals is one passage of the summed mass, so that RAG over the mixture is RAG-Turn:
    log p(y_t) = LSE_j( log omega_j + LSE_i( log p(d_ji|x_j) + a_jit ) ).

    Source: Shuster et al. 2021 (arXiv 2104.07567), RAG-Turn Doc-Then-Turn.

    Args:
        found: At least one; state, provenance and timings are the first one's.
        log_weights: Natural log of omega, not normalised; parallel to `found`.
    """
    masses: dict[str, float] = {}
    origins: dict[str, tuple[Retrieval, int]] = {}
    for retrieval, log_weight in zip(found, log_weights, strict=True):
        for index, (facts, log_prior) in enumerate(zip(retrieval.facts, retrieval.log_priors, strict=True)):
            masses[facts.id] = float(np.logaddexp(masses.get(facts.id, -math.inf), log_weight + log_prior))
            origins.setdefault(facts.id, (retrieval, index))
    ids = sorted(masses, key=lambda id: -masses[id])
    hits = [origins[id] for id in ids]
    spaces = [retrieval.space for retrieval, _ in hits if retrieval.space is not None]
    vectors = [retrieval.space.vectors[index] for retrieval, index in hits if retrieval.space is not None]
    return replace(
        found[0],
        passages=[retrieval.passages[index] for retrieval, index in hits],
        facts=[retrieval.facts[index] for retrieval, index in hits],
        log_priors=_normalised([masses[id] for id in ids]),
        space=replace(spaces[0], vectors=np.stack(vectors)) if spaces else None,
    )


def keep(found: Retrieval, indices: Sequence[int]) -> Retrieval:
    """The passages of these places alone, in this order; their prior is normalised over them."""
    space = found.space
    return replace(
        found,
        passages=[found.passages[index] for index in indices],
        facts=[found.facts[index] for index in indices],
        log_priors=_normalised([found.log_priors[index] for index in indices]),
        space=replace(space, vectors=space.vectors[list(indices)]) if space is not None and indices else None,
    )


def _normalised(log_masses: Sequence[float]) -> list[float]:
    total = float(np.logaddexp.reduce(log_masses)) if log_masses else 0.0
    return [log_mass - total for log_mass in log_masses]
