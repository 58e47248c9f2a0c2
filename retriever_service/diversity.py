"""Choosing passages that do not say the same twice. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retriever_service.collection import Passage, Scores, Vectors

DEFAULT_RELEVANCE = 0.7


def by_marginal_relevance(scores: Scores, vectors: Vectors, relevance: float) -> Iterator[int]:
    """Positions by maximal marginal relevance, each chosen in the light of those before it.

    The next is the one of the highest relevance * score - (1 - relevance) * (highest cosine to those chosen), the
    scores scaled to [0, 1] over all N; equal ones come by position.

    Source: Carbonell and Goldstein 1998.

    Args:
        scores: (N,) higher is better.
        vectors: (N, D), none of them zero.
        relevance: In [0, 1]; 1 is the order of the scores.
    """
    if not len(scores):
        return
    spread = float(scores.max() - scores.min())
    scaled = (scores - scores.min()) / spread if spread > 0 else np.zeros(len(scores))
    directions = vectors.astype(np.float64)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    position, nearest, is_chosen = int(np.argmax(scores)), np.full(len(scores), -np.inf), np.zeros(len(scores), bool)
    for _ in range(len(scores)):
        yield position
        is_chosen[position] = True
        nearest = np.maximum(nearest, directions @ directions[position])
        gains = relevance * scaled - (1 - relevance) * nearest
        position = int(np.argmax(np.where(is_chosen, -np.inf, gains)))


def content_key(passage: Passage) -> tuple[str, str]:
    """Equal for passages whose title and text differ in white space and letter case alone."""
    return " ".join(passage.title.casefold().split()), " ".join(passage.text.casefold().split())
