"""Choosing among passages and among answers by their scores. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CandidateWeights:
    """What the two logarithms of candidates-then-rerank weigh."""

    generation: float = 1.0
    retrieval: float = 1.0


class RerankMethod(StrEnum):
    """What the generator is asked of each hit: the contract's names."""

    QUESTION_LIKELIHOOD = "QUESTION_LIKELIHOOD"
    ANSWERABILITY = "ANSWERABILITY"


@dataclass(frozen=True, slots=True)
class GeneratorRerank:
    """How hits are reranked by what the generator says of them.

    Attributes:
        method: log p(question | passage), or the log-odds that the passage holds an answer.
        num_candidates: Hits that are read again.
        top_k: Hits kept.
        min_score: Hits of a lower final score are dropped.
        temperature: QUESTION_LIKELIHOOD: of the prior. The other method's is the one that the retriever used.
        weight: ANSWERABILITY: what a nat of log-odds adds to the retriever's score.
    """

    method: RerankMethod
    num_candidates: int
    top_k: int
    min_score: float = -math.inf
    temperature: float = 1.0
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A candidate answer by its place among those generated."""

    index: int
    retrieval_score: float
    ranking_score: float


@dataclass(frozen=True, slots=True)
class RerankedHit:
    """A hit by its place among those retrieved."""

    index: int
    score: float
    rerank_score: float
    log_prior: float


def retrieval_scores(
    candidates: Vectors, passages: Vectors, *, temperature: float, is_cosine: bool
) -> npt.NDArray[np.float64]:
    """How well each candidate fits the passages: log sum_i exp(s(x + c, d_i) / temperature), in float64.

    Args:
        candidates: (C, D), the embedded x + c.
        passages: (N, D), as stored: unit vectors where the metric is cosine.
        temperature: tau of the collection.
        is_cosine: Whether s is the cosine, else the inner product.

    Returns:
        (C,)
    """
    queries = candidates.astype(np.float64)
    if is_cosine:
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return np.asarray(np.logaddexp.reduce(queries @ passages.astype(np.float64).T / temperature, axis=1))


def rank_candidates(
    log_probabilities: Sequence[float], scores: Sequence[float], weights: CandidateWeights
) -> tuple[RankedCandidate, ...]:
    """The candidates by generation * log p(c|x) + retrieval * score, best first; equal ones keep their order."""
    ranked = [
        RankedCandidate(index, score, weights.generation * log_probability + weights.retrieval * score)
        for index, (log_probability, score) in enumerate(zip(log_probabilities, scores, strict=True))
    ]
    return tuple(sorted(ranked, key=lambda candidate: -candidate.ranking_score))


def choose(log_probabilities: Sequence[float]) -> tuple[list[int], list[float]]:
    """Places by log p(y|x), best first (equal ones keep their order), and the softmax, in the order given."""
    scores = np.array(log_probabilities, np.float64)
    probabilities = np.exp(scores - np.logaddexp.reduce(scores))
    return np.argsort(-scores, kind="stable").tolist(), probabilities.tolist()


def rerank_by_likelihood(log_likelihoods: Sequence[float], how: GeneratorRerank) -> tuple[RerankedHit, ...]:
    """The best hits by log p(x|d), best first; equal ones keep their order.

    The prior is Bayes' rule over the hits kept, all equally likely beforehand: the log-softmax of the log-likelihoods
    over the temperature.

    Source: Sachan et al. 2022 (arXiv 2204.07496), equation 2; their mean over tokens gives the same order.
    """
    scores = np.array(log_likelihoods, np.float64)
    return _best(scores, scores, how, how.temperature)


def rerank_by_answerability(
    log_no_answers: Sequence[float],
    log_priors: Sequence[float],
    how: GeneratorRerank,
    *,
    first_score: float,
    temperature: float,
) -> tuple[RerankedHit, ...]:
    """The best hits by s + weight * log-odds, best first; equal ones keep their order. The prior is its log-softmax.

    s is what the retriever's prior is made of: temperature * log p(d|x), shifted so that the first hit's is its score.

    Args:
        log_no_answers: log p(no answer | x, d) of each hit, natural.
        log_priors: The retriever's log p(d|x) = log_softmax(s / temperature).
        how: Weight, and what is kept.
        first_score: The first hit's.
        temperature: tau, as the retriever used it.
    """
    prior, log_odds = np.array(log_priors, np.float64), log_odds_of_an_answer(log_no_answers)
    scores = first_score + temperature * (prior - prior[0]) + how.weight * log_odds
    return _best(scores, log_odds, how, temperature)


def log_odds_of_an_answer(log_no_answers: Sequence[float]) -> npt.NDArray[np.float64]:
    """log(1 - p) - log p of p = exp(log_no_answer), which is held within [e^-30, 1 - 1e-6]: it comes in float32."""
    log_p = np.clip(np.array(log_no_answers, np.float64), -30.0, math.log1p(-1e-6))
    return np.asarray(np.log1p(-np.exp(log_p)) - log_p)


def _best(
    scores: npt.NDArray[np.float64], rerank_scores: npt.NDArray[np.float64], how: GeneratorRerank, temperature: float
) -> tuple[RerankedHit, ...]:
    order = np.argsort(-scores, kind="stable")[: how.top_k]
    order = order[scores[order] >= how.min_score]
    scaled = scores[order] / temperature
    log_priors = scaled - np.logaddexp.reduce(scaled) if len(order) else scaled
    return tuple(
        RerankedHit(int(index), float(scores[index]), float(rerank_scores[index]), float(log_prior))
        for index, log_prior in zip(order, log_priors, strict=True)
    )
