"""Distilling a bi-encoder: the student's vectors approach the teacher's, and rank a batch's passages as they do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.distillation.losses import embedding_loss, similarity_loss
from training.distillation.shapes import StudentShape, cut
from training.distillation.width import narrowed
from training.retriever.batches import BatchStream
from training.retriever.corpus_vectors import CorpusVectors, HeldOut
from training.retriever.towers import BiEncoder, Half
from training.runtime.loop import Terms

_RANKING_TEXTS = 64


def cut_encoder(teacher: BiEncoder, shape: StudentShape, dimension: int | None, texts: list[str]) -> BiEncoder:
    """A student of both halves, which are one.

    Args:
        teacher: with one BERT model for questions and passages.
        shape: layers and inner width.
        dimension: of its vectors; None keeps the teacher's, and with it the teacher's index.
        texts: some, to rank neurons and channels by.

    Raises:
        ValueError: the teacher has two models, or cannot be cut so.
    """
    half = teacher.passage
    if teacher.query.model is not half.model:
        raise ValueError("a student has one model for questions and passages; the teacher has two")
    tokens = half.tokenization.queries(texts[:_RANKING_TEXTS])

    def run(model: Any) -> None:
        for row in tokens["input_ids"]:
            model(input_ids=torch.tensor([row]))

    model = cut(half.model, shape, run).eval()
    if dimension is not None and dimension != model.config.hidden_size:
        model = narrowed(model, dimension, run)
    student = Half(half.source, model, max_tokens=half.tokenization.checkpoint.max_input_tokens)
    is_narrower = model.config.hidden_size != half.model.config.hidden_size
    return BiEncoder(student, student, trained="both", trains_words=is_narrower, dropout=0.0)


class EncoderStudent(nn.Module):
    """What is trained: the student and, where it is narrower, a projection to the teacher's width."""

    def __init__(self, encoder: BiEncoder, *, teacher_dimension: int) -> None:
        super().__init__()
        self.encoder = encoder
        dimension = encoder.passage.model.config.hidden_size
        is_narrower = dimension != teacher_dimension
        self.projection = nn.Linear(dimension, teacher_dimension, bias=False) if is_narrower else nn.Identity()

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (N, D) as they compare with the teacher's."""
        if isinstance(self.projection, nn.Linear):
            vectors = vectors.to(self.projection.weight.dtype)
        projected: Tensor = self.projection(vectors)
        return projected.float()


class EncoderDistillation:
    """The task of the loop."""

    def __init__(
        self,
        teacher: CorpusVectors,
        vectors: CorpusVectors,
        student: EncoderStudent,
        stream: BatchStream,
        held_out: HeldOut,
        *,
        embedding: float,
        similarity: float,
        temperature: float,
        batch_size: int,
        accumulate: int,
    ) -> None:
        """Puts it together.

        Args:
            teacher: Its vectors over the corpus.
            vectors: The student's.
            student: What is trained.
            stream: The batches.
            held_out: What is measured.
            embedding: Weight of the distance of vectors.
            similarity: Weight of the divergence of rankings.
            temperature: Of the scores of both.
            batch_size: Questions of a micro-batch.
            accumulate: Micro-batches of a step.
        """
        self._teacher, self._vectors, self._student = teacher, vectors, student
        self._stream, self._held_out, self._accumulate = stream, held_out, accumulate
        self._embedding, self._similarity, self._temperature = embedding, similarity, temperature
        self.num_questions_per_step = batch_size * accumulate

    def terms(self, step: int, part: int) -> Terms:
        """The loss of a micro-batch."""
        batch = self._stream.batch(step * self._accumulate + part)
        with torch.no_grad():
            asked, stored = self._teacher.questions(batch.questions), self._teacher.passages(batch.passages)
        my_asked, my_stored = self._vectors.questions(batch.questions), self._vectors.passages(batch.passages)
        embedding = embedding_loss(torch.cat([asked, stored]), self._student(torch.cat([my_asked, my_stored])))
        similarity = similarity_loss(asked @ stored.T, my_asked @ my_stored.T, temperature=self._temperature)
        total = self._embedding * embedding + self._similarity * similarity
        return Terms(total, {"embedding": embedding.item(), "similarity": similarity.item()})

    def save(self, folder: Path) -> None:
        """Writes the student as sentence-transformers lays it out, without the projection."""
        self._student.encoder.save(folder)

    def measure(self) -> Mapping[str, float]:
        """Recall and MRR of held-out questions."""
        return self._held_out.measure(self._student.encoder)
