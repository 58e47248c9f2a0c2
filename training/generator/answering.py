"""Greedy answers of a checkpoint to (question, passage) pairs, in batches sorted by length; for measuring only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration, PreTrainedTokenizerBase

from generator_service.prompt import Prompt, PromptFormat
from generator_service.surface import restore_surface
from training.generator.warm_start import load_tokenizer


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with one passage."""

    question: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A greedy answer that may not be empty, with what the model thinks of it.

    log_probability is log p(y|x,d) of the answer with its EOS, in nats, over all ``num_tokens``; the empty answer was
    suppressed without renormalising, so its probability ``empty_probability`` is missing from the first token's.
    """

    raw: str
    text: str
    log_probability: float
    num_tokens: int
    empty_probability: float


class Answerer:
    """A model ready to answer."""

    def __init__(self, model: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> None:
        self.model, self.tokenizer, self._prompt = model.eval(), tokenizer, prompt

    @classmethod
    def load(cls, checkpoint: Path, *, dtype: torch.dtype = torch.float32) -> "Answerer":
        """The checkpoint in a folder."""
        model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=dtype)
        named = getattr(model.config, "rag_prompt", {"format": "question_passage"})
        return cls(model, load_tokenizer(checkpoint), PromptFormat.from_config(named))

    def answer(self, asked: Sequence[Asked], *, batch_size: int = 32) -> list[Answered]:
        """Answers in the order of ``asked``."""
        inputs = [self._prompt.encode(self.tokenizer, a.question, a.title, a.text) for a in asked]
        order = sorted(range(len(asked)), key=lambda index: len(inputs[index]))
        answered: dict[int, Answered] = {}
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            batch = [(asked[index], inputs[index]) for index in chosen]
            answered.update(zip(chosen, self._answer_batch(batch), strict=True))
        return [answered[index] for index in range(len(asked))]

    @torch.inference_mode()
    def _answer_batch(self, batch: Sequence[tuple[Asked, list[int]]]) -> Iterator[Answered]:
        longest = max(len(ids) for _, ids in batch)
        pad_id, eos_id = int(self.model.config.pad_token_id), int(self.model.config.eos_token_id)
        input_ids = torch.tensor([ids + [pad_id] * (longest - len(ids)) for _, ids in batch])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for _, ids in batch])
        outputs = self.model.generate(
            input_ids=input_ids, attention_mask=mask, num_beams=1, do_sample=False, min_new_tokens=1, max_new_tokens=32,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        answers = outputs.sequences[:, 1:]
        logits = [step.float() for step in outputs.logits]
        chosen = [step.log_softmax(-1).gather(1, answers[:, [t]]) for t, step in enumerate(logits)]
        log_probabilities = torch.cat(chosen, dim=1)
        empty = logits[0].softmax(-1)[:, eos_id]
        for row, (asked, _) in enumerate(batch):
            ids = answers[row].tolist()
            num_tokens = ids.index(eos_id) + 1 if eos_id in ids else len(ids)
            passage = self._prompt.passage_segment(asked.title, asked.text)
            surface = restore_surface(self.tokenizer, ids[:num_tokens], [passage])
            total = float(log_probabilities[row, :num_tokens].sum())
            yield Answered(surface.raw, surface.text, total, num_tokens, float(empty[row]))
