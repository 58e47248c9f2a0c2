"""What is found for a question while training: exact search with the question encoder as it is at this step."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from retriever_service.candidates import LexicalStage
from retriever_service.collection import LexicalScoring
from retriever_service.fusion import FusionMethod
from retriever_service.lexical_index import LexicalIndex
from retriever_service.search import Mode
from retriever_service.tf_idf import TfIdf
from retriever_service.vectors import mixed
from training.joint.knowledge import KnowledgeBase


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What was found for B questions, best first.

    Attributes:
        places: (B, K) int64, into the knowledge base's passages.
        scores: (B, K) without gradient.
        constant: (B, N) the part of all passages' scores that has no gradient: the weighted lexical score, or zeros.
    """

    places: Tensor
    scores: Tensor
    constant: Tensor


class Search:
    """Searches one knowledge base by dense score, or by the collection's fusion of dense and lexical score."""

    def __init__(self, base: KnowledgeBase, mode: Mode) -> None:
        """Builds the lexical index, if there is to be one, in a temporary directory; `close` deletes it.

        Raises:
            SystemExit: The collection's fusion gives no scores that a prior could be made of.
        """
        self.base = base
        self.place_of = {passage.id: place for place, passage in enumerate(base.passages)}
        self._closing = ExitStack()
        self._lexical: LexicalStage | None = None
        self._dense_weight = 1.0
        if mode is Mode.HYBRID:
            if base.scoring.fusion.method is not FusionMethod.LINEAR:
                raise SystemExit("hybrid training needs linear fusion: ranks, which RRF adds up, have no gradient")
            self._dense_weight = base.scoring.fusion.dense_weight
            self._lexical = self._closing.enter_context(_lexical_stage(base))

    def close(self) -> None:
        """Deletes what lies on disk."""
        self._closing.close()

    def find(self, vectors: Tensor, texts: Sequence[str], count: int, *, required: Sequence[int | None]) -> Hits:
        """The best passages of each question.

        Args:
            vectors: (B, D) of the questions, without gradient.
            texts: The questions.
            count: Passages of each, fewer where the knowledge base has fewer.
            required: For each question a passage that takes the last place where it was not found, or None.
        """
        constant = self._constant(texts)
        base = self.base
        dense = _with_best_sentences(vectors, base.vectors, base.sentences, base.sentence_places)
        scores = self._dense_weight * dense + constant
        places = scores.topk(min(count, len(self.base.passages))).indices
        for row, wanted in enumerate(required):
            if wanted is not None and wanted not in places[row]:
                places[row, -1] = wanted
        return Hits(places, scores.gather(1, places), constant)

    def scores(self, vectors: Tensor, candidates: Tensor, hits: Hits, passage_vectors: Tensor | None = None) -> Tensor:
        """The candidates' scores (B, U), with the vectors' gradient.

        Args:
            vectors: (B, D) of the questions.
            candidates: (U,) places, ascending, each once.
            hits: What was found for the questions.
            passage_vectors: (U, D) in place of the stored ones; vectors of sentences stay the stored ones.
        """
        stored = self.base.vectors[candidates] if passage_vectors is None else passage_vectors
        is_theirs = torch.isin(self.base.sentence_places, candidates)
        columns = torch.searchsorted(candidates, self.base.sentence_places[is_theirs])
        dense = _with_best_sentences(vectors, stored, self.base.sentences[is_theirs], columns)
        return self._dense_weight * dense + hits.constant[:, candidates]

    def _constant(self, texts: Sequence[str]) -> Tensor:
        constant = torch.zeros(len(texts), len(self.base.passages))
        if self._lexical is not None:
            for row, text in enumerate(texts):
                places, scores = self._lexical.search(text, len(self.base.passages))
                constant[row, torch.from_numpy(places)] = torch.from_numpy(scores).float()
        return self.base.scoring.fusion.lexical_weight * constant


def _with_best_sentences(vectors: Tensor, passages: Tensor, sentences: Tensor, columns: Tensor) -> Tensor:
    """Dense scores (B, N) as the retriever's `with_best_sentences`: of questions (B, D) and passages (N, D).

    Args:
        vectors: Of the questions.
        passages: Of the passages.
        sentences: (M, D).
        columns: (M,) each sentence's passage.
    """
    whole = vectors @ passages.T
    best = torch.full_like(whole, -torch.inf)
    best = best.scatter_reduce(1, columns.expand(len(vectors), -1), vectors @ sentences.T, "amax")
    return mixed(whole, torch.where(best.isneginf(), whole, best))


@contextmanager
def _lexical_stage(base: KnowledgeBase) -> Iterator[LexicalStage]:
    """The collection's lexical scoring; rows are places."""
    with TemporaryDirectory(prefix="rag-lexical-") as folder:
        index = LexicalIndex(Path(folder), base.scoring.language, "training")
        index.add((row, one.title, one.text) for row, one in enumerate(base.passages))
        index.commit(1)
        if base.scoring.lexical_scoring is LexicalScoring.BM25:
            yield index
        else:
            yield TfIdf(index, lambda rows: [(row, base.passages[row].title, base.passages[row].text) for row in rows])
        index.close()
