"""Fits a collection's fusion and temperature to questions with known answers. Pure: it works on pools fetched before.

The fusion maximises the sum of the mean reciprocal rank of the first relevant passage (it reads well) and recall@k (it
is read at all); the temperature then minimises the mean of -log p(relevant | question) over the k passages, where a
relevant one is among them. Both are fitted on one part of the questions, and kept only where the other part gains.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.estimates import Estimate, bootstrap
from evaluation.pools import NUM_CANDIDATES, Floats, Pool

MIN_QUESTIONS, MAX_TOP_K = 20, NUM_CANDIDATES // 2
_HELD_OUT_RATIO = 1 / 3
_RRF_KS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0, 200.0)
_STEPS = np.exp2(np.arange(-12, 13) / 2)  # From 1/64 to 64 times the guess, by the square root of 2.
_REFINEMENTS, _FINER = 3, 4


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a collection ranks and weighs; the names are the contract's."""

    method: str
    dense_weight: float
    lexical_weight: float
    rrf_k: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What a scoring is worth on some questions, one number for each.

    Attributes:
        reciprocal_ranks: Of the first relevant passage; 0 where the stages found none.
        hits: Whether one is among the first `top_k`.
        losses: -log p(relevant | question) over the first `top_k`; NaN where no relevant one is among them.
    """

    reciprocal_ranks: Floats
    hits: Floats
    losses: Floats

    @property
    def gains(self) -> Floats:
        """What a fusion is fitted to."""
        return self.reciprocal_ranks + self.hits


@dataclass(frozen=True, slots=True)
class Change:
    """A measure on the held-out questions; `difference` is after minus before, question by question."""

    before: Estimate
    after: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came of it. `after` is `before` where nothing was better."""

    before: Scoring
    after: Scoring
    num_fitted: int
    num_held_out: int
    changes: dict[str, Change]


def tune(pools: Sequence[Pool], before: Scoring, *, top_k: int, fits_fusion: bool, fits_temperature: bool) -> Tuning:
    """Fits what is asked for.

    Args:
        pools: Of the questions.
        before: The present scoring.
        top_k: Passages that an answer is made from.
        fits_fusion: Whether method, weights and rrf_k may change.
        fits_temperature: Whether the temperature may.

    Raises:
        ValueError: When there are too few questions, none has a relevant passage among its candidates, or `top_k` is
            more than the candidates are made for.
    """
    if not 1 <= top_k <= MAX_TOP_K:
        raise ValueError(f"top_k is {top_k}; it must be 1 to {MAX_TOP_K}")
    fitted = [pool for pool in pools if not _is_held_out(pool)]
    held_out = [pool for pool in pools if _is_held_out(pool)]
    if len(pools) < MIN_QUESTIONS or not held_out:
        raise ValueError(f"{len(pools)} questions have a known answer; {MIN_QUESTIONS} or more are needed")
    if not any(pool.is_relevant.any() for pool in fitted):
        raise ValueError(
            "no question has a relevant passage among what is found: are these questions on this collection?"
        )
    after = before
    if fits_fusion:
        after = _better(held_out, after, _best_fusion(fitted, before, top_k), top_k, by="gains")
    if fits_temperature:
        after = _better(held_out, after, _best_temperature(fitted, after, top_k), top_k, by="losses")
    changes = _changes(measure(held_out, before, top_k), measure(held_out, after, top_k))
    return Tuning(before, after, len(fitted), len(held_out), changes)


def rank(pool: Pool, scoring: Scoring) -> tuple[Floats, Floats]:
    """The scores (N,) that order a pool, and those that its prior is made of, as the retriever computes them."""
    if scoring.method == "rrf":
        fused = np.zeros(len(pool.dense))
        for weight, ranks in ((scoring.dense_weight, pool.dense_rank), (scoring.lexical_weight, pool.lexical_rank)):
            fused += 1.0 / (scoring.rrf_k + ranks) if weight else 0.0
        return fused, pool.dense
    fused = scoring.dense_weight * pool.dense + scoring.lexical_weight * pool.lexical
    return fused, fused


def measure(pools: Sequence[Pool], scoring: Scoring, top_k: int) -> Quality:
    """What a scoring is worth on these questions."""
    rows = [_measure(pool, scoring, top_k) for pool in pools]
    return Quality(*np.array(rows, np.float64).reshape(-1, 3).T)


def _measure(pool: Pool, scoring: Scoring, top_k: int) -> tuple[float, float, float]:
    scores, prior_scores = rank(pool, scoring)
    order = np.argsort(-scores, kind="stable")
    places = np.flatnonzero(pool.is_relevant[order])
    if not len(places):
        return 0.0, 0.0, math.nan
    if places[0] >= top_k:
        return 1.0 / (places[0] + 1), 0.0, math.nan
    logits = prior_scores[order[:top_k]] / scoring.temperature
    relevant = logits[places[places < top_k]]
    loss = np.logaddexp.reduce(logits) - np.logaddexp.reduce(relevant)
    return 1.0 / (places[0] + 1), 1.0, float(loss)


def _best_fusion(pools: Sequence[Pool], before: Scoring, top_k: int) -> Scoring:
    """The linear fusion or the RRF that gains most; linear where they are equal."""

    def loss(scoring: Scoring) -> float:
        return -float(measure(pools, scoring, top_k).gains.mean())

    def weighed(weight: float) -> Scoring:
        return replace(before, method="linear", dense_weight=1.0, lexical_weight=weight)

    guess = _spread([pool.dense for pool in pools]) / (_spread([pool.lexical for pool in pools]) or 1.0)
    weight = _minimise(lambda value: loss(weighed(value)), guess or 1.0)
    linear = min((weighed(0.0), weighed(weight)), key=loss)
    rrf = [replace(before, method="rrf", dense_weight=1.0, lexical_weight=1.0, rrf_k=k) for k in _RRF_KS]
    return min((linear, *rrf), key=loss)


def _best_temperature(pools: Sequence[Pool], scoring: Scoring, top_k: int) -> Scoring:
    def loss(temperature: float) -> float:
        losses = measure(pools, replace(scoring, temperature=temperature), top_k).losses
        return float(np.nanmean(losses)) if not np.isnan(losses).all() else 0.0

    guess = _spread([np.sort(rank(pool, scoring)[1])[-top_k:] for pool in pools])
    return replace(scoring, temperature=_minimise(loss, guess or 1.0))


def _spread(scores: Sequence[Floats]) -> float:
    """The mean standard deviation within a question."""
    return float(np.mean([each.std() for each in scores if len(each)]))


def _minimise(loss: Callable[[float], float], guess: float) -> float:
    """The best of a geometric grid around a guess, then of ever finer ones around the best; three digits are enough."""
    grid = guess * _STEPS
    ratio = math.sqrt(2.0)
    for _ in range(_REFINEMENTS):
        best = grid[int(np.argmin([loss(float(value)) for value in grid]))]
        ratio **= 1 / _FINER
        grid = best * ratio ** np.arange(-_FINER, _FINER + 1)
    best = grid[int(np.argmin([loss(float(value)) for value in grid]))]
    return float(f"{best:.3g}")


def _better(pools: Sequence[Pool], present: Scoring, candidate: Scoring, top_k: int, *, by: str) -> Scoring:
    """The candidate where these questions gain by it."""
    old, new = (getattr(measure(pools, scoring, top_k), by) for scoring in (present, candidate))
    gain = np.nan_to_num(new - old).mean()
    return candidate if (gain > 0 if by == "gains" else gain < 0) else present


def _changes(before: Quality, after: Quality) -> dict[str, Change]:
    names = {"MRR": "reciprocal_ranks", "recall@k": "hits", "-log p(relevant)": "losses"}
    changes = {}
    for name, field in names.items():
        old, new = getattr(before, field), getattr(after, field)
        both = ~np.isnan(old) & ~np.isnan(new)
        if both.any():
            changes[name] = Change(*(bootstrap(each[both].tolist()) for each in (old, new, new - old)))
    return changes


def _is_held_out(pool: Pool) -> bool:
    """By the question's id, so that the parts stay the same from run to run."""
    digest = hashlib.sha256(pool.question_id.encode()).digest()
    return digest[0] < 256 * _HELD_OUT_RATIO
