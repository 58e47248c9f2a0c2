"""Passages that look right and are not: hard negatives by BM25 over the training pool.

Source: Okapi BM25, Robertson & Zaragoza 2009, with k1=1.2 and b=0.75. Terms are token ids; those in more than a tenth
of the passages carry no evidence and are skipped.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from evaluation.answers import normalize_answer
from training.generator.pool import TrainingPassage, TrainingPool, TrainingQuestion

_K1, _B, _MAX_DOCUMENT_RATIO = 1.2, 0.75, 0.1


class TermIndex:
    """BM25 postings over passages' token ids, as dense numpy vectors: meant for thousands of passages."""

    def __init__(self, passages: Iterable[tuple[int, ...]]) -> None:
        counts = [Counter(ids) for ids in passages]
        lengths = np.array([max(1, count.total()) for count in counts], dtype=np.float64)
        self._num_passages = len(counts)
        postings: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for index, count in enumerate(counts):
            for term, frequency in count.items():
                postings[term].append((index, frequency))
        norms = _K1 * (1 - _B + _B * lengths / lengths.mean())
        self._postings: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = {}
        for term, entries in postings.items():
            if len(entries) <= max(1.0, _MAX_DOCUMENT_RATIO * self._num_passages):
                where = np.array([index for index, _ in entries])
                times = np.array([count for _, count in entries], dtype=np.float64)
                rarity = np.log(1 + (self._num_passages - len(entries) + 0.5) / (len(entries) + 0.5))
                self._postings[term] = (where, rarity * times * (_K1 + 1) / (times + norms[where]))

    def ranked(self, terms: Iterable[int], top_k: int) -> list[tuple[int, float]]:
        """The ``top_k`` passages of the highest positive score with it, best first; equal scores by index."""
        scores = np.zeros(self._num_passages)
        for term in sorted(set(terms)):
            if term in self._postings:
                where, weights = self._postings[term]
                scores[where] += weights
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(index), float(scores[index])) for index in best if scores[index] > 0]

    def nearest(self, terms: Iterable[int], top_k: int) -> list[int]:
        """``ranked`` without the scores."""
        return [index for index, _ in self.ranked(terms, top_k)]


def mine_negatives(
    pool: TrainingPool, questions: Iterable[TrainingQuestion], *, top_k: int = 8
) -> dict[str, tuple[int, ...]]:
    """For each question id, passages near it that hold none of its answers; may be empty."""
    index = TermIndex(passage.text_ids for passage in pool.passages)
    texts = [_searchable(passage) for passage in pool.passages]
    mined: dict[str, tuple[int, ...]] = {}
    for question in questions:
        if question.id not in mined:
            answers = [f" {normalize_answer(answer)} " for answer in question.answers]
            near = index.nearest(question.question_ids, top_k + 4)
            allowed = [i for i in near if i != question.passage and not any(answer in texts[i] for answer in answers)]
            mined[question.id] = tuple(allowed[:top_k])
    return mined


def _searchable(passage: TrainingPassage) -> str:
    return f" {normalize_answer(passage.title)} {normalize_answer(passage.text)} "
