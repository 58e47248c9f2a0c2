"""Multi-task training as the shared loop runs it: language modelling of the target, and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional
from transformers import BartForConditionalGeneration, PreTrainedTokenizerBase

from generator_service.prompt import PromptFormat
from training.generator.examples import Batch, Example, SpecialIds, collate
from training.runtime.loop import Terms
from training.tasks.cases import rag_tasks
from training.tasks.stream import Batches

_DECODER_RATE, _ENCODER_RATE = 3e-4, 1e-4
_TARGETS_STEP = 32  # Few distinct shapes: oneDNN compiles its kernels per shape.


def peak_rate(name: str) -> float:
    """Peak learning rate of a generator's parameter: below a warm start's, for this model can read already."""
    return _ENCODER_RATE if ".encoder." in name else _DECODER_RATE


def freeze_lower_half(generator: BartForConditionalGeneration) -> None:
    """Leave embeddings and the first half of the encoder as they are: they read already, and it saves a third."""
    encoder = generator.model.encoder
    generator.model.shared.requires_grad_(False)
    for part in (encoder.embed_positions, encoder.layernorm_embedding, *encoder.layers[: len(encoder.layers) // 2]):
        part.requires_grad_(False)


class TasksTask:
    """Trains the upper part of ``generator``, its ``module``, on ``batches``; measured on ``held_out``."""

    def __init__(
        self,
        generator: BartForConditionalGeneration,
        batches: Batches,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        accumulate: int,
        ids: SpecialIds,
        held_out: Mapping[str, Sequence[Example]],
    ) -> None:
        freeze_lower_half(generator)
        self.module, self._batches, self._tokenizer = generator, batches, tokenizer
        self._batch_size, self._accumulate, self._ids, self._held_out = batch_size, accumulate, ids, held_out

    @property
    def num_questions_per_step(self) -> int:
        """Examples of one optimizer step."""
        return self._batch_size * self._accumulate

    def terms(self, step: int, part: int) -> Terms:
        """The loss of batch ``step * accumulate + part``: mean over its examples of -log p per target token."""
        total = self._losses(self._batches.batch(step * self._accumulate + part)).mean()
        return Terms(total, {"nll": total.item()})

    def save(self, folder: Path) -> None:
        """Write a Hugging Face checkpoint that names its tasks."""
        config = self.module.config
        config.rag_tasks, config.rag_prompt, config.dtype = rag_tasks(), PromptFormat().as_config(), torch.float32
        self.module.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def measure(self) -> Mapping[str, float]:
        """Mean log p per target token of each task's held-out examples."""
        measured = {}
        for task, examples in self._held_out.items():
            ordered = sorted(examples, key=lambda each: len(each.input_ids))
            groups = [ordered[start : start + self._batch_size] for start in range(0, len(ordered), self._batch_size)]
            losses = torch.cat([self._losses(collate(group, self._ids)) for group in groups])
            measured[task] = -float(losses.mean())
        return measured

    def _losses(self, batch: Batch) -> torch.Tensor:
        """float32 (B,): each example counts the same, however long its target; a label is two tokens, a summary 60."""
        states = self.module.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=batch.decoder_ids,
            use_cache=False,
        ).last_hidden_state
        real = batch.target_ids != -100
        places = real.flatten().nonzero().squeeze(-1)
        padded = functional.pad(places, (0, -len(places) % _TARGETS_STEP))
        logits = self.module.lm_head(states.flatten(0, 1)[padded])[: len(places)]
        lost = functional.cross_entropy(logits.float(), batch.target_ids.flatten()[places], reduction="none")
        sums = torch.zeros(len(real)).index_add(0, places // real.shape[1], lost)
        return sums / real.sum(1)
