"""A corpus under an encoder in training: vectors with a gradient for a step, exact ones in bulk for measuring."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retriever_service.fusion import Fusion, linear
from retriever_service.lexical_index import LexicalIndex
from training.retriever.data import Corpus
from training.retriever.ranking import gold_ranks, metrics_of
from training.retriever.towers import BiEncoder, passage_texts

Floats = npt.NDArray[np.float32]

_MAX_MEASURED, _MAX_POOL = 500, 2000
_BULK_DTYPE = "bfloat16"


class CorpusVectors:
    """The encoder over the corpus's questions and passages, by their places.

    `stored` (P, D) are all passages as the encoder embedded them at the start.
    """

    stored: Tensor

    def __init__(self, encoder: BiEncoder, corpus: Corpus, *, recompute: bool, is_searched: bool) -> None:
        """Tokenizes everything.

        Args:
            encoder: Still in float32.
            corpus: What is trained on.
            recompute: See `Half.embed`.
            is_searched: Whether `stored` is wanted; a frozen passage half wants it anyway.
        """
        self.encoder, self.corpus, self._recompute = encoder, corpus, recompute
        self._questions = encoder.query.tokenization.queries([question.text for question in corpus.questions])
        self._passages = encoder.passage.tokenization.passages(passage_texts(corpus.passages))
        self._is_frozen = encoder.trained == "query"
        if is_searched or self._is_frozen:
            self.stored = torch.from_numpy(self.all_passages())

    def questions(self, places: Sequence[int]) -> Tensor:
        """(N, D) float32."""
        return self.encoder.query.embed(self._questions, places, recompute=self._recompute)

    def passages(self, places: Sequence[int]) -> Tensor:
        """(N, D) float32; without a gradient where the passage half is frozen."""
        if self._is_frozen:
            return self.stored[list(places)]
        return self.encoder.passage.embed(self._passages, places, recompute=self._recompute)

    def all_questions(self) -> Floats:
        """(Q, D), for mining; only while the encoder holds float32 weights."""
        return self.encoder.query.tower(dtype=_BULK_DTYPE).encode_queries([each.text for each in self.corpus.questions])

    def all_passages(self) -> Floats:
        """(P, D), as `all_questions`."""
        return self.encoder.passage.tower(dtype=_BULK_DTYPE).encode_passages(passage_texts(self.corpus.passages))


class HeldOut:
    """Held-out questions against a pool: their own passages and, up to `_MAX_POOL`, the corpus's first others."""

    def __init__(self, corpus: Corpus, index: LexicalIndex) -> None:
        """Prepares.

        Args:
            corpus: Has held-out questions.
            index: Holds its passages by their place.
        """
        self._questions = corpus.held_out[:_MAX_MEASURED]
        own = {question.passage: None for question in self._questions}
        places = list(dict.fromkeys([*own, *range(len(corpus.passages))]))[: max(_MAX_POOL, len(own))]
        self._passages = [corpus.passages[place] for place in places]
        self._gold = np.array([places.index(question.passage) for question in self._questions], np.int64)
        rows = np.array(places, np.int64)
        found = [index.scores(question.text, rows) for question in self._questions]
        self._lexical = np.array(found, np.float64).reshape(len(found), len(rows))

    def measure(self, encoder: BiEncoder) -> Mapping[str, float]:
        """Recall and MRR, dense and hybrid; {} without held-out questions."""
        if not self._questions:
            return {}
        asked = encoder.query.tower(dtype=_BULK_DTYPE).encode_queries([each.text for each in self._questions])
        stored = encoder.passage.tower(dtype=_BULK_DTYPE).encode_passages(passage_texts(self._passages))
        dense = (asked @ stored.T).astype(np.float64)
        scores = {"dense": dense, "hybrid": linear(dense, self._lexical, Fusion())}
        return {
            f"{stage} {name}": float(values.mean())
            for stage, ranked in scores.items()
            for name, values in metrics_of(gold_ranks(ranked, self._gold)).items()
        }
