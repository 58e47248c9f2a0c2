"""Distilling a generator that reads one passage: token by token, or from the teacher's own answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import Seq2SeqLMOutput

from evaluation.answers import exact_match, f1
from generator_service.prompt import Prompt
from training.distillation.losses import IGNORED, Mixing, attention_loss, hidden_loss, token_kl
from training.distillation.shapes import matched_layers
from training.generator import attention
from training.generator.answering import Answerer, Asked
from training.generator.examples import Batch, ExampleStream
from training.generator.pool import TrainingPool, hash_unit
from training.runtime.loop import Schedule, Terms

_MAX_NEW_TOKENS = 32


class Mode(StrEnum):
    """What the student learns of: token distributions, the teacher's answer, or its hypothesis closest to the gold."""

    TOKEN = "token"
    SEQUENCE = "sequence"
    SEQUENCE_INTER = "sequence-inter"


class Pair:
    """A teacher beside the student that learns from it; both read the same vocabulary.

    The teacher is frozen, and so are the student's word embeddings, which are the teacher's own.
    """

    def __init__(self, teacher: PreTrainedModel, student: PreTrainedModel, *, dtype: torch.dtype) -> None:
        self.teacher = teacher.to(dtype).eval().requires_grad_(False)
        self.student = student
        student.get_input_embeddings().weight.requires_grad_(False)
        self._reads: dict[PreTrainedModel, Tensor] = {}
        if teacher.config.model_type == "bart":
            attention.register()
            for model in (teacher, student):
                model.set_attn_implementation(attention.NAME)
                model.model.decoder.layers[-1].encoder_attn.register_forward_hook(partial(self._keep, model))

    def terms(self, batch: Batch, labels: Tensor, *, temperature: float) -> dict[str, Tensor]:
        """What the student may learn: "kl" and "nll" of tokens, "hidden" states, "attention" of a BART decoder."""
        with torch.no_grad():
            theirs = _run(self.teacher, batch, labels)
        mine = _run(self.student, batch, labels)
        is_target = labels != IGNORED
        wanted, logits = labels[is_target], mine.logits[is_target].float()
        terms = {
            "kl": token_kl(theirs.logits[is_target].float(), logits, wanted, temperature=temperature),
            "nll": functional.cross_entropy(logits, wanted),
            "hidden": _hidden(theirs.encoder_hidden_states, mine.encoder_hidden_states, batch.attention_mask),
        }
        if self._reads:
            terms["attention"] = attention_loss(self._reads.pop(self.teacher), self._reads.pop(self.student), labels)
        return terms

    def _keep(
        self, model: PreTrainedModel, module: torch.nn.Module, inputs: tuple[object, ...], outputs: tuple[Tensor, ...]
    ) -> None:
        """The last cross-attention's weights (B, H, T, S)."""
        self._reads[model] = outputs[1]


class GeneratorDistillation:
    """The task of the training loop. ``held_out`` are gold-passage questions with their answers."""

    def __init__(
        self,
        pair: Pair,
        stream: ExampleStream,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Prompt,
        schedule: Schedule,
        *,
        mode: Mode,
        mixing: Mixing,
        batch_size: int,
        num_beams: int,
        held_out: Sequence[tuple[Asked, Sequence[str]]],
    ) -> None:
        self._pair, self._stream, self._tokenizer, self._prompt = pair, stream, tokenizer, prompt
        self._mode, self._mixing, self._num_beams, self._held_out = mode, mixing, num_beams, held_out
        self._batch_size, self._accumulate = batch_size, schedule.accumulate

    @property
    def num_questions_per_step(self) -> int:
        """Examples of one optimizer step."""
        return self._batch_size * self._accumulate

    def terms(self, step: int, part: int) -> Terms:
        """The loss of batch ``step * accumulate + part`` of the stream."""
        batch = self._stream.batch(step * self._accumulate + part, self._batch_size)
        labels = batch.target_ids if self._mode is Mode.TOKEN else self._decoded(batch)
        terms = self._pair.terms(batch, labels, temperature=self._mixing.temperature)
        shown = {name: term.item() for name, term in terms.items()}
        kl, nll, *rest = terms.values()
        mixing = self._mixing if self._mode is Mode.TOKEN else replace(self._mixing, kd=0.0, nll=1.0)
        return Terms(mixing.total(kl, nll, *rest), shown)

    def save(self, folder: Path) -> None:
        """Write the student as a Hugging Face checkpoint."""
        self._pair.student.config.dtype = torch.float32
        self._pair.student.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def measure(self) -> Mapping[str, float]:
        """Exact match and F1, in percent, on the held-out questions."""
        if not self._held_out:
            return {}
        answerer = Answerer(self._pair.student, self._tokenizer, self._prompt)
        answered = answerer.answer([asked for asked, _ in self._held_out])
        pairs = [(answer.text, golds) for answer, (_, golds) in zip(answered, self._held_out, strict=True)]
        return {
            "em": 100 * float(np.mean([exact_match(text, golds) for text, golds in pairs])),
            "f1": 100 * float(np.mean([f1(text, golds) for text, golds in pairs])),
        }

    @torch.no_grad()
    def _decoded(self, batch: Batch) -> Tensor:
        """Labels (B, T) made of the teacher's answers: its best, or of its beam the closest to the gold answer.

        Source: Kim & Rush 2016 (arXiv 1606.07947), sections 3.2 and 3.3.
        """
        is_inter = self._mode is Mode.SEQUENCE_INTER
        generated: Tensor = self._pair.teacher.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            do_sample=False,
            num_beams=self._num_beams,
            num_return_sequences=self._num_beams if is_inter else 1,
            max_new_tokens=_MAX_NEW_TOKENS,
            min_new_tokens=0,
        )[:, 1:]
        eos = self._pair.teacher.config.eos_token_id
        is_after_end = ((generated == eos).cumsum(1) - (generated == eos).long()) > 0
        labels = generated.masked_fill(is_after_end, IGNORED).view(len(batch.target_ids), -1, generated.shape[1])
        return torch.stack([closest(own, gold) for own, gold in zip(labels, batch.target_ids, strict=True)])


def closest(hypotheses: Tensor, gold: Tensor) -> Tensor:
    """Of ``hypotheses`` (K, T), the best first, the one that shares most tokens with ``gold`` (T',), by F1."""
    wanted, *given = (" ".join(map(str, row[row != IGNORED].tolist())) for row in (gold, *hypotheses))
    scores = [f1(each, [wanted]) for each in given]
    return hypotheses[int(np.argmax(scores))]


def held_out_questions(pool: TrainingPool, count: int) -> list[tuple[Asked, Sequence[str]]]:
    """The first ``count`` answerable held-out questions, in an order that depends on their ids alone."""
    answerable = sorted((q for q in pool.held_out if q.answers), key=lambda question: hash_unit(question.id))
    passages = [pool.passages[question.passage] for question in answerable[:count]]
    return [
        (Asked(question.question, passage.title, passage.text), question.answers)
        for question, passage in zip(answerable, passages, strict=False)
    ]


def _hidden(teacher: Sequence[Tensor], student: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean error of the student's encoder layers against those they stand for; embeddings come first in both."""
    layers = matched_layers(len(teacher) - 1, len(student) - 1)
    errors = [hidden_loss(teacher[1 + theirs], student[1 + mine], mask) for mine, theirs in enumerate(layers)]
    return torch.stack(errors).mean()


def _run(model: PreTrainedModel, batch: Batch, labels: Tensor) -> Seq2SeqLMOutput:
    """One teacher-forced pass."""
    start = torch.full((len(labels), 1), model.config.decoder_start_token_id)
    pad = model.config.pad_token_id
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        decoder_input_ids=torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, pad)], 1),
        output_hidden_states=True,
        use_cache=False,
    )
