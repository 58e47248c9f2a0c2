"""Training against the passages of a batch: the own one is to be found among the others and mined negatives."""

from collections.abc import Mapping
from pathlib import Path

import torch

from training.retriever.batches import BatchStream
from training.retriever.corpus_vectors import CorpusVectors, HeldOut
from training.retriever.losses import in_batch
from training.retriever.mining import Answering
from training.runtime.loop import Terms


class Contrastive:
    """The task of the loop."""

    def __init__(
        self,
        vectors: CorpusVectors,
        stream: BatchStream,
        held_out: HeldOut,
        *,
        temperature: float,
        batch_size: int,
        accumulate: int,
    ) -> None:
        """Puts it together.

        Args:
            vectors: Of the encoder over the corpus.
            stream: The batches.
            held_out: What is measured.
            temperature: Of the scores.
            batch_size: Questions of a micro-batch.
            accumulate: Micro-batches of a step.
        """
        self._vectors, self._stream, self._held_out = vectors, stream, held_out
        self._temperature = temperature
        self._accumulate = accumulate
        self.num_questions_per_step = batch_size * accumulate
        self._answering = Answering(vectors.corpus.passages)

    def terms(self, step: int, part: int) -> Terms:
        """The loss of a micro-batch, and how often the own passage scores highest."""
        batch = self._stream.batch(step * self._accumulate + part)
        scores = self._vectors.questions(batch.questions) @ self._vectors.passages(batch.passages).T
        questions = [self._vectors.corpus.questions[place] for place in batch.questions]
        is_excluded = torch.tensor([self._answering.flags(question, batch.passages) for question in questions])
        positives = torch.tensor(batch.positives)
        loss = in_batch(scores / self._temperature, positives, is_excluded)
        right = (scores.argmax(1) == positives).float().mean()
        return Terms(loss, {"loss": loss.item(), "right": right.item()})

    def save(self, folder: Path) -> None:
        """Writes the encoder."""
        self._vectors.encoder.save(folder)

    def measure(self) -> Mapping[str, float]:
        """Recall and MRR of held-out questions."""
        return self._held_out.measure(self._vectors.encoder)
