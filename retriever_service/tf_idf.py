"""TF-IDF scoring of passages that share a word with the query. The statistics are those of the lexical index.

A passage's score is the sum over the query's words w (one that stands twice counts twice) of

    sqrt(tf(w, d)) * idf(w)^2 / sqrt(|d|),    idf(w) = 1 + ln((N + 1) / (df(w) + 1))

where |d| counts the words of title and text, and N and df count the passages there are now: deleted ones no more.

Source: Apache Lucene's classic similarity (TFIDFSimilarity, "practical scoring function", without the coordination and
query norm that Lucene 7 dropped); here the length is exact, not rounded to a byte.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from retriever_service.collection import Rows, Scores
from retriever_service.fusion import best
from retriever_service.lexical_index import LexicalIndex, indexed_text

# Candidates come by BM25, in larger number: the two rank alike, not the same.
_OVER_FETCH = 4


class TfIdf:
    """Rows by the TF-IDF score of their text, as `LexicalIndex` finds them by BM25."""

    def __init__(self, index: LexicalIndex, texts: Callable[[Sequence[int]], list[tuple[int, str, str]]]) -> None:
        """Scores for one request.

        Args:
            index: Finds candidates, splits texts into words, counts passages by word.
            texts: (row, title, text) of those rows that exist.
        """
        self._index, self._texts = index, texts

    def search(self, text: str, count: int, among: Rows | None = None) -> tuple[Rows, Scores]:
        """The `count` best rows for a query, best first, with their scores; see `LexicalIndex.search`."""
        rows, _ = self._index.search(text, _OVER_FETCH * count, among)
        scores = self.scores(text, rows)
        order = best(scores, rows, count)
        return rows[order], scores[order]

    def scores(self, text: str, rows: Rows) -> Scores:
        """The score of each of `rows`; 0 where none of the query's words occurs."""
        total = self._index.num_passages
        weights = {
            word: count * idf(self._index.num_with(word), total) ** 2
            for word, count in self._index.query_words(text).items()
        }
        found = {row: self._score(weights, title, body) for row, title, body in self._texts(rows.tolist())}
        return np.array([found.get(row, 0.0) for row in rows.tolist()], np.float64)

    def _score(self, weights: Mapping[str, float], title: str, text: str) -> float:
        return score(weights, self._index.words(indexed_text(title, text)))


def idf(num_with: int, num_passages: int) -> float:
    """The inverse document frequency of a word that stands in `num_with` of `num_passages` passages."""
    return 1.0 + math.log((num_passages + 1) / (num_with + 1))


def score(weights: Mapping[str, float], words: Sequence[str]) -> float:
    """The score of a passage of these words, by the weights of the query's words: count times idf squared."""
    counts = Counter(word for word in words if word in weights)
    total = sum(weights[word] * math.sqrt(count) for word, count in counts.items())
    return total / math.sqrt(len(words)) if counts else 0.0
