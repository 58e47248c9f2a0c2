"""Hard negatives: passages that a retriever ranks high and that do not answer. BM25 is the retriever's own."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluation.answers import normalize_answer
from retriever_service.lexical_index import LexicalIndex
from training.retriever.data import Passage, Question

Floats = npt.NDArray[np.float32]
NUM_MINED = 8
_SPARE = 8  # More are looked at, since some answer.
_ROWS_AT_ONCE = 512


class Answering:
    """Which passages answer a question: its own one, and each that holds one of its answers."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._texts = [f" {normalize_answer(passage.title)} {normalize_answer(passage.text)} " for passage in passages]

    def flags(self, question: Question, places: Sequence[int]) -> list[bool]:
        """Whether each of `places` answers."""
        answers = [f" {answer} " for answer in map(normalize_answer, question.answers) if answer]
        return [
            place == question.passage or any(answer in self._texts[place] for answer in answers) for place in places
        ]


@contextmanager
def lexical_index(passages: Sequence[Passage]) -> Iterator[LexicalIndex]:
    """The retriever's lexical index of passages by their place, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="rag-lexical-") as directory:
        index = LexicalIndex(Path(directory), "english", "training")
        index.add((place, passage.title, passage.text) for place, passage in enumerate(passages))
        index.commit(1)
        yield index
        index.close()


def mine_lexical(index: LexicalIndex, questions: Sequence[Question], answering: Answering) -> list[list[int]]:
    """For each question, the best passages by BM25 that do not answer it: up to `NUM_MINED` places, best first."""
    found = (index.search(question.text, NUM_MINED + _SPARE)[0].tolist() for question in questions)
    return [_keep(question, places, answering) for question, places in zip(questions, found, strict=True)]


def mine_dense(
    questions: Sequence[Question], question_vectors: Floats, passage_vectors: Floats, answering: Answering
) -> list[list[int]]:
    """The same by inner product of the present encoder's vectors, (Q, D) and (P, D)."""
    best = nearest(question_vectors, passage_vectors, NUM_MINED + _SPARE)
    return [_keep(question, places.tolist(), answering) for question, places in zip(questions, best, strict=True)]


def nearest(question_vectors: Floats, passage_vectors: Floats, count: int) -> npt.NDArray[np.int64]:
    """Places (Q, count) of the largest inner products, best first; exact."""
    count = min(count, len(passage_vectors))
    found = [np.empty((0, count), np.int64)]
    for start in range(0, len(question_vectors), _ROWS_AT_ONCE):
        scores = question_vectors[start : start + _ROWS_AT_ONCE] @ passage_vectors.T
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        found.append(np.take_along_axis(best, order, 1))
    return np.concatenate(found)


def _keep(question: Question, places: Sequence[int], answering: Answering) -> list[int]:
    flags = answering.flags(question, places)
    return [place for place, answers in zip(places, flags, strict=True) if not answers][:NUM_MINED]
