"""Trains the translator of this example: the default generator, taught to read a translation memory.

Half of the words of a training sentence are made up for it alone, so that their translation can only be copied from the
memory. The passages are read apart and decoded together (Fusion-in-Decoder, Izacard & Grave 2021): a sentence needs
several entries at once.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from language import HELD_OUT, WORDS, Pair, made_up, sentence
from torch.nn import functional
from transformers import BartForConditionalGeneration, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from gateway.prompts import TaskPrompt
from generator_service.config import GeneratorConfig
from generator_service.models.loading import locate
from generator_service.prompt import PromptFormat
from training.generator.task import peak_rate
from training.generator.warm_start import load_tokenizer
from training.runtime.flags import add_run_flags
from training.runtime.loop import Terms
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run
from training.tasks.task import freeze_lower_half

PROMPT = TaskPrompt("translate: {question}")
NUM_ENTRIES = 6  # Passages of a sentence; ask with the same top_k.
_LENGTH_STEP = 8  # Few distinct shapes: oneDNN compiles its kernels per shape.
_NO_MEMORY_RATIO, _MADE_UP_RATIO, _KNOWN_ENTRY_RATIO = 0.15, 0.5, 0.5

KNOWN = tuple(word for word in WORDS if word.english not in HELD_OUT)


def draw(rng: random.Random) -> tuple[Pair, list[str]]:
    """A sentence to train on, and the six passages that its memory finds, those of all made-up words among them.

    Now and then there is no memory, and no made-up word. Six empty passages weigh in the decoder's attention as one.
    """
    if rng.random() < _NO_MEMORY_RATIO:
        return sentence(KNOWN, rng).pair, [""] * NUM_ENTRIES
    words = [made_up(word, rng) if rng.random() < _MADE_UP_RATIO else word for word in KNOWN]
    drawn = sentence(words, rng)
    entries = [word.entry for word in drawn.words if word not in KNOWN]
    entries += [word.entry for word in drawn.words if word in KNOWN and rng.random() < _KNOWN_ENTRY_RATIO]
    others = [word.entry for word in rng.sample(words, NUM_ENTRIES)]
    passages = [f"{entry.english} => {entry.indonesian}" for entry in [*entries, *others][:NUM_ENTRIES]]
    rng.shuffle(passages)
    return drawn.pair, passages


class TranslatorTask:
    """What the training loop runs."""

    def __init__(
        self,
        model: BartForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
    ) -> None:
        freeze_lower_half(model)
        self._model, self._tokenizer, self._prompt = model, tokenizer, PromptFormat()
        self._batch_size, self._accumulate, self._seed = batch_size, accumulate, seed

    @property
    def num_questions_per_step(self) -> int:
        """Sentences of an optimizer step."""
        return self._batch_size * self._accumulate

    def terms(self, step: int, part: int) -> Terms:
        """-log p per target token of the sentences of this step and part."""
        rng = random.Random(f"{self._seed}:{step}:{part}")
        loss = self._loss([draw(rng) for _ in range(self._batch_size)])
        return Terms(loss, {"nll": loss.item()})

    def save(self, folder: Path) -> None:
        """Write a Hugging Face checkpoint that names its task."""
        self._model.config.rag_tasks = {"translation": {"template": PROMPT.template}}
        self._model.config.dtype = torch.float32
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def measure(self) -> Mapping[str, float]:
        """Mean log p per target token of fixed sentences that training does not draw."""
        rng = random.Random("held out")
        return {"log_p": -self._loss([draw(rng) for _ in range(64)]).item()}

    def _loss(self, drawn: Sequence[tuple[Pair, list[str]]]) -> torch.Tensor:
        inputs, mask = self._padded([self._input(pair, each) for pair, passages in drawn for each in passages], 0)
        targets = [[*self._tokens(pair.indonesian), self._tokenizer.sep_token_id] for pair, _ in drawn]
        labels, _ = self._padded(targets, -100)
        start = torch.full((len(drawn), 1), self._tokenizer.cls_token_id)
        states = self._model.model.encoder(input_ids=inputs, attention_mask=mask).last_hidden_state
        logits = self._model(
            encoder_outputs=BaseModelOutput(states.reshape(len(drawn), -1, states.shape[-1])),
            attention_mask=mask.reshape(len(drawn), -1),
            decoder_input_ids=torch.cat([start, labels[:, :-1].clamp(min=0)], dim=1),
            use_cache=False,
        ).logits
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    def _input(self, pair: Pair, passage: str) -> list[int]:
        return self._prompt.encode(self._tokenizer, PROMPT.fill(question=pair.english), "", passage)

    def _tokens(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _padded(self, rows: Sequence[Sequence[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
        longest = -(-max(map(len, rows)) // _LENGTH_STEP) * _LENGTH_STEP
        padded = torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])
        return padded, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, and leaves the translator in OUT/checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_flags(parser, max_steps=400, batch_size=16)
    flags = parser.parse_args(arguments)
    schedule = begin(flags)
    folder = locate("default", GeneratorConfig().cache_dir.expanduser())
    model, tokenizer = BartForConditionalGeneration.from_pretrained(folder), load_tokenizer(folder)
    task = TranslatorTask(model, tokenizer, batch_size=flags.batch_size, accumulate=flags.accumulate, seed=flags.seed)
    weights = MasterWeights(model, rate=peak_rate, dtype=schedule.dtype, warmup_ratio=schedule.warmup_ratio)
    run(task, weights, flags, schedule)


if __name__ == "__main__":
    main()
