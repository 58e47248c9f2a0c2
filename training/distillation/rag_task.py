"""Distilling a whole RAG model: what the teacher finds, how it weighs it, and how it answers from it.

Both read the passages that the teacher finds. The student learns the teacher's prior over them, its answer from each,
their mixture, and the posterior: to answer from the same passage.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.distillation.losses import IGNORED, Mixing, Mixture, rag_terms
from training.joint.losses import log_prior
from training.joint.questions import Question, QuestionStream, window
from training.joint.reader import Row
from training.joint.search import Hits, Search
from training.joint.task import JointModel, Options
from training.runtime.loop import Terms


class RagDistillation:
    """The task of the loop.

    Args:
        teacher: Frozen, in the dtype that the student computes in.
        student: Its question encoder gives vectors that compare with the collection's, as the teacher's does.
        stream: The questions by batch.
        search: Finds passages by the teacher's vectors.
        options: How many passages, their prior's temperature, how much of each is read.
        mixing: Weights; ``kd`` is that of prior, passages, marginal and posterior together.
        batch_size: Questions of a micro-batch.
        accumulate: Micro-batches per step.
        measure: Metrics of the student on held-out questions.
    """

    def __init__(
        self,
        teacher: JointModel,
        student: JointModel,
        stream: QuestionStream,
        search: Search,
        options: Options,
        *,
        mixing: Mixing,
        batch_size: int,
        accumulate: int,
        measure: Callable[[], Mapping[str, float]],
    ) -> None:
        self._teacher, self._student, self._stream, self._search = teacher, student, stream, search
        self._options, self._mixing, self._accumulate, self._measure = options, mixing, accumulate, measure
        self.num_questions_per_step = batch_size * accumulate

    def terms(self, step: int, part: int) -> Terms:
        """The loss of a micro-batch, per target token where it is a sum over them."""
        questions = self._stream.batch(step * self._accumulate + part)
        rng = random.Random(f"{self._options.seed}:{step}:{part}")
        with torch.no_grad():
            vectors = _embedded(self._teacher, questions)
            texts = [question.text for question in questions]
            hits = self._search.find(vectors, texts, self._options.num_passages, required=[None] * len(texts))
            rows = [
                self._row(question, place, rng)
                for question, places in zip(questions, hits.places.tolist(), strict=True)
                for place in places
            ]
            teacher = self._mixture(self._teacher, vectors, hits, rows)
        student = self._mixture(self._student, _embedded(self._student, questions), hits, rows)
        labels = self._labels(rows[:: hits.places.shape[1]])
        terms = rag_terms(teacher, student, labels)
        num_tokens = (labels != IGNORED).sum() / len(labels)
        kd = terms.prior + terms.posterior + (terms.document + terms.marginal) / num_tokens
        nll = terms.nll / num_tokens
        shown = {name: getattr(terms, name).item() for name in ("prior", "document", "marginal", "posterior")}
        return Terms(self._mixing.total(kd, nll), {"nll": nll.item(), **shown})

    def save(self, folder: Path) -> None:
        """Write the student's two plain checkpoints, ``encoder`` and ``generator``."""
        self._student.save(folder)

    def measure(self) -> Mapping[str, float]:
        """Metrics on held-out questions."""
        return self._measure()

    def _row(self, question: Question, place: int, rng: random.Random) -> Row:
        reader, passage = self._teacher.reader, self._search.base.passages[place]
        text = window(reader.tokenizer, passage, self._options.max_passage_tokens, rng)
        return reader.row(question.text, passage.title, text, question.target)

    def _mixture(self, model: JointModel, vectors: Tensor, hits: Hits, rows: Sequence[Row]) -> Mixture:
        _, every = model.reader(rows, every_word=True)
        assert every is not None
        candidates, columns = torch.unique(hits.places, return_inverse=True)
        scores = self._search.scores(vectors, candidates, hits).gather(1, columns)
        prior = log_prior(scores, self._options.temperature)
        return Mixture(prior, every.view(*prior.shape, *every.shape[1:]))

    @staticmethod
    def _labels(rows: Sequence[Row]) -> Tensor:
        """Targets (B, T) of one row of each question."""
        width = max(len(row.target_ids) for row in rows)
        return torch.tensor([[*row.target_ids, *[IGNORED] * (width - len(row.target_ids))] for row in rows])


def _embedded(model: JointModel, questions: Sequence[Question]) -> Tensor:
    """Question vectors (B, D)."""
    texts = [question.text for question in questions]
    half = model.encoder.query
    return half.embed(half.tokenization.queries(texts), range(len(texts)), recompute=False)
