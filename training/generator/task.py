"""Generator training as the shared loop runs it: batches by number, three loss terms, a plain checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import torch
from transformers import BartForConditionalGeneration, PreTrainedTokenizerBase

from training.generator.examples import ExampleStream, SpecialIds, collate
from training.generator.objective import Objective
from training.generator.pool import TrainingQuestion
from training.runtime.loop import Schedule, Terms

_DECODER_RATE, _ENCODER_RATE = 5e-4, 2e-4


def peak_rate(name: str) -> float:
    """Peak learning rate of an ``Objective``'s parameter: the decoder learns faster, it starts from less."""
    return _ENCODER_RATE if ".encoder." in name else _DECODER_RATE


class GeneratorTask:
    """Trains ``objective`` on ``stream``; ``held_out`` questions are what it is measured on."""

    def __init__(
        self,
        objective: Objective,
        stream: ExampleStream,
        tokenizer: PreTrainedTokenizerBase,
        schedule: Schedule,
        *,
        batch_size: int,
        ids: SpecialIds,
        held_out: Sequence[TrainingQuestion] = (),
    ) -> None:
        self._objective, self._stream, self._tokenizer = objective, stream, tokenizer
        self._batch_size, self._accumulate, self._ids, self._held_out = batch_size, schedule.accumulate, ids, held_out

    @property
    def num_questions_per_step(self) -> int:
        """Examples of one optimizer step."""
        return self._batch_size * self._accumulate

    def terms(self, step: int, part: int) -> Terms:
        """The loss of batch ``step * accumulate + part`` of the stream."""
        terms = self._objective(self._stream.batch(step * self._accumulate + part, self._batch_size))
        shown = {"lm": terms.language_model.item(), "span": terms.span.item(), "guide": terms.guidance.item()}
        return Terms(terms.total, shown)

    def save(self, folder: Path) -> None:
        """Write a Hugging Face checkpoint without the span head and without dropout."""
        generator = self._objective.generator
        plain = BartForConditionalGeneration(type(generator.config)(**generator.config.to_dict()))
        plain.load_state_dict(generator.state_dict())
        plain.config.dropout = 0.0
        plain.config.dtype = torch.float32
        plain.generation_config = generator.generation_config
        plain.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def measure(self) -> Mapping[str, float]:
        """Mean log p per target token over one fixed view of each held-out question (higher is better)."""
        examples = [self._stream.draw(question, Random(f"held out:{question.id}")) for question in self._held_out]
        examples.sort(key=lambda example: len(example.input_ids))
        total, num_targets = 0.0, 0
        for start in range(0, len(examples), self._batch_size):
            group = examples[start : start + self._batch_size]
            count = sum(len(example.target_ids) for example in group)
            total -= self._objective(collate(group, self._ids)).language_model.item() * count
            num_targets += count
        return {"log_p": total / num_targets} if num_targets else {}
