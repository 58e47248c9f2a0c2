"""Training by what a frozen reader finds useful among the passages that the encoder itself finds."""

import enum
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.retriever.batches import BatchStream
from training.retriever.corpus_vectors import CorpusVectors, HeldOut
from training.retriever.data import Passage, Question
from training.retriever.losses import emdr2, loop_target, matching, pdist_target
from training.retriever.reading import FrozenReader
from training.runtime.loop import Terms


class ReaderLoss(enum.StrEnum):
    """How the reader's opinion becomes a loss; see `losses`."""

    PDIST = "pdist"
    EMDR2 = "emdr2"
    LOOP = "loop"
    ADIST = "adist"


class FromReader:
    """The task of the loop.

    Passages are found by the vectors stored at the start, exactly, with the question vectors as they are at the step;
    where the passage half is trained, too, those found are embedded anew.
    """

    def __init__(
        self,
        vectors: CorpusVectors,
        stream: BatchStream,
        held_out: HeldOut,
        reader: FrozenReader,
        *,
        loss: ReaderLoss,
        top_k: int,
        temperature: float,
        reader_temperature: float,
        batch_size: int,
        accumulate: int,
    ) -> None:
        """Puts it together.

        Args:
            vectors: Of the encoder over the corpus; it stores its passages.
            stream: The batches, of which the questions count alone.
            held_out: What is measured.
            reader: Frozen.
            loss: Which.
            top_k: Passages found for a question, 2 or more.
            temperature: Of the scores.
            reader_temperature: Of the target; EMDR2 has none.
            batch_size: Questions of a micro-batch.
            accumulate: Micro-batches of a step.
        """
        self._vectors, self._stream, self._held_out, self._reader = vectors, stream, held_out, reader
        self._loss, self._top_k = loss, top_k
        self._temperature, self._reader_temperature = temperature, reader_temperature
        self._accumulate = accumulate
        self.num_questions_per_step = batch_size * accumulate

    def terms(self, step: int, part: int) -> Terms:
        """The loss of a micro-batch, and how often the best passage of reader and retriever is the same."""
        places = self._stream.batch(step * self._accumulate + part).questions
        corpus = self._vectors.corpus
        asked = self._vectors.questions(places)
        found = (asked.detach() @ self._vectors.stored.T).topk(min(self._top_k, len(corpus.passages))).indices
        unique, column = torch.unique(found, return_inverse=True)
        embedded = self._vectors.passages(unique.tolist())[column]
        logits = (asked[:, None] * embedded).sum(-1) / self._temperature
        questions = [corpus.questions[place] for place in places]
        passages = [[corpus.passages[place] for place in row] for row in found.tolist()]
        loss, opinion = self._compared(logits, questions, passages)
        agreed = (logits.argmax(1) == opinion.argmax(1)).float().mean()
        return Terms(loss, {"loss": loss.item(), "agreed": agreed.item()})

    def save(self, folder: Path) -> None:
        """Writes the encoder."""
        self._vectors.encoder.save(folder)

    def measure(self) -> Mapping[str, float]:
        """Recall and MRR of held-out questions."""
        return self._held_out.measure(self._vectors.encoder)

    def _compared(
        self, logits: Tensor, questions: list[Question], passages: list[list[Passage]]
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the reader's opinion (B, k)."""
        if self._loss is ReaderLoss.ADIST:
            target = self._reader.attention_targets(questions, passages, self._reader_temperature)
            return matching(target, logits), target
        answers, num_tokens = self._reader.answer_log_probs(questions, passages)
        if self._loss is ReaderLoss.EMDR2:
            return emdr2(logits, answers), answers
        to_target = pdist_target if self._loss is ReaderLoss.PDIST else loop_target
        target = to_target(answers, num_tokens, self._reader_temperature)
        return matching(target, logits), target
