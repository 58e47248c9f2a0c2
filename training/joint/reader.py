"""The generator in joint training: how likely each answer is given each passage, with or without a gradient.

Rows are sorted by length and go through in small chunks, so that short ones are not padded to the longest; the output
layer runs on real target positions alone. Lengths come in few steps, because oneDNN compiles its kernels per shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration, PreTrainedTokenizerBase, RagModel

from generator_service.models.checkpoint import Checkpoint
from generator_service.models.defaults import SpecialTokens
from generator_service.models.loading import load_generator, locate
from generator_service.prompt import Prompt
from generator_service.text import TextCodec
from training.generator import attention

_ROWS_PER_CHUNK = 8
_INPUT_STEP, _TARGET_STEP, _PLACES_STEP = 32, 4, 16


@dataclass(frozen=True, slots=True)
class Row:
    """A question with one passage, and the answer with its EOS, as token ids."""

    input_ids: Sequence[int]
    target_ids: Sequence[int]


class Reader(torch.nn.Module):
    """A BART generator with its tokenizer and prompt; word embeddings, and the tied output layer, are frozen."""

    def __init__(
        self, generator: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, prompt: Prompt
    ) -> None:
        super().__init__()
        attention.register()
        generator.set_attn_implementation(attention.NAME)
        generator.get_input_embeddings().weight.requires_grad_(False)
        self.generator, self.tokenizer, self.prompt = generator, tokenizer, prompt
        self.recomputes = False  # Keep little for the backward pass, and compute each chunk's activations once more.
        self._codec = TextCodec(tokenizer, prompt)
        self._special = SpecialTokens.of(generator.config, generator.generation_config)

    def row(self, question: str, title: str, text: str, answer: str) -> Row:
        """One input with its target."""
        return Row(self.prompt.encode(self.tokenizer, question, title, text), self.target(answer))

    def target(self, answer: str) -> list[int]:
        """The answer's token ids, framed as the generator writes them."""
        return self._codec.target(answer, eos_token_id=self._special.eos, forced_bos_token_id=self._special.forced_bos)

    def forward(self, rows: Sequence[Row], *, every_word: bool = False) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of R rows' targets, T tokens the longest, in float32.

        Returns:
            (R, T) of the target tokens, 0 where padded, and with `every_word` (R, T, V) of all words.
        """
        num_steps = max(len(row.target_ids) for row in rows)
        order = sorted(range(len(rows)), key=lambda place: len(rows[place].input_ids))
        chunks = [order[start : start + _ROWS_PER_CHUNK] for start in range(0, len(order), _ROWS_PER_CHUNK)]
        found = [self._run([rows[place] for place in chunk], num_steps, every_word=every_word) for chunk in chunks]
        back = torch.argsort(torch.tensor(order))
        every = torch.cat([one for _, one in found if one is not None])[back] if every_word else None
        return torch.cat([chosen for chosen, _ in found])[back], every

    def save(self, folder: Path) -> None:
        """Write a plain checkpoint."""
        self.generator.set_attn_implementation("sdpa")
        self.generator.save_pretrained(folder)
        self.generator.set_attn_implementation(attention.NAME)
        self.tokenizer.save_pretrained(folder)

    def _run(self, rows: Sequence[Row], num_steps: int, *, every_word: bool) -> tuple[Tensor, Tensor | None]:
        compute = partial(self._chunk, rows, num_steps, every_word=every_word)
        if not (self.recomputes and torch.is_grad_enabled()):
            return compute()
        found: tuple[Tensor, Tensor | None] = checkpoint(compute, use_reentrant=False)
        return found

    def _chunk(self, rows: Sequence[Row], num_steps: int, *, every_word: bool) -> tuple[Tensor, Tensor | None]:
        inputs, mask = _padded([row.input_ids for row in rows], _INPUT_STEP, self._special.pad)
        starts = [[self._special.decoder_start, *row.target_ids[:-1]] for row in rows]
        decoder_ids, real = _padded(starts, _TARGET_STEP, self._special.pad)
        wanted, _ = _padded([row.target_ids for row in rows], _TARGET_STEP, self._special.pad)
        states = self.generator.model(
            input_ids=inputs, attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False
        ).last_hidden_state
        places = real.flatten().nonzero().squeeze(-1)
        filled = pad(places, (0, -len(places) % _PLACES_STEP))
        logits = self.generator.lm_head(states.flatten(0, 1)[filled]) + self.generator.final_logits_bias
        logits = logits[: len(places)].float()
        chosen = -cross_entropy(logits, wanted.flatten()[places], reduction="none")
        size, width = len(rows), decoder_ids.shape[1]
        by_row = pad(_spread(chosen, places, size * width).view(size, width), (0, num_steps - width))
        if not every_word:
            return by_row, None
        every = _spread(torch.log_softmax(logits, -1), places, size * width).view(size, width, -1)
        return by_row, pad(every, (0, 0, 0, num_steps - width))


def _spread(values: Tensor, places: Tensor, length: int) -> Tensor:
    """(P, ...) values at their places of (length, ...) zeros."""
    return values.new_zeros(length, *values.shape[1:]).index_put((places,), values)


def _padded(rows: Sequence[Sequence[int]], step: int, filling: int) -> tuple[Tensor, Tensor]:
    """Rows (R, L) and their mask; L is a multiple of ``step``."""
    width = -(-max(map(len, rows)) // step) * step
    ids = torch.full((len(rows), width), filling)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids, mask


def load_reader(name: str, cache_dir: Path) -> Reader:
    """The generator of a checkpoint, of a whole RAG model's too, in float32.

    Raises:
        FileNotFoundError: There is none, or it has no tokenizer.
        SystemExit: It is no BART.
    """
    stored = Checkpoint(locate(name, cache_dir))
    kind: Any = AutoModelForSeq2SeqLM if stored.rag_config is None else RagModel
    model = kind.from_pretrained(stored.path, dtype=torch.float32, local_files_only=True)
    generator = model if stored.rag_config is None else model.generator
    if not isinstance(generator, BartForConditionalGeneration):
        raise SystemExit(f"generator {name!r} is a {type(generator).__name__}; joint training takes BART checkpoints")
    loaded = load_generator(name, dtype="float32", device="cpu", cache_dir=cache_dir)  # For the prompt's rules.
    return Reader(generator, loaded.tokenizer, loaded.prompt)
