"""Training examples: one (question, cropped passage) with its target, drawn deterministically, in length buckets.

Example number ``n`` of a run depends on (seed, n) alone, and so does every batch: a run that stops can go on with the
very same data. Positives and negatives draw their crop lengths from one distribution, so length tells no label.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from generator_service.prompt import PromptFormat
from training.generator.pool import TrainingPassage, TrainingPool, TrainingQuestion, occurrences

_CROP_TOKENS = (96, 144)
_LONG_TOKENS = 256
_LONG_RATIO = 0.25
_TITLE_RATIO = 0.7
_BATCHES_PER_BUCKETING = 40
# Few distinct shapes: oneDNN compiles its kernels per shape, and with every length its own the compiling never ended.
_INPUT_LENGTH_STEP = 16
_TARGET_LENGTH_STEP = 4


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The special token ids that frame an input and a target."""

    cls_id: int = 101
    sep_id: int = 102
    pad_id: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One training example; ``answer_start`` is the answer's place in ``input_ids``, None when there is no answer.

    ``target_ids`` ends with EOS; for a negative it is EOS alone.
    """

    input_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    answer_start: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded tensors of B examples, S input tokens, T target tokens.

    input_ids, attention_mask: int64 (B, S). decoder_ids, target_ids: int64 (B, T), targets -100 where padded.
    spans: int64 (B, 2), first and last answer token, both 0 without an answer. gold_positions: int64 (B, T), the input
    position that target token t copies, -1 where it copies none (EOS, padding, negatives).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    decoder_ids: torch.Tensor
    target_ids: torch.Tensor
    spans: torch.Tensor
    gold_positions: torch.Tensor


class ExampleStream:
    """The run's examples by number, and its batches by step."""

    def __init__(
        self,
        pool: TrainingPool,
        negatives: dict[str, tuple[int, ...]],
        *,
        prompt: PromptFormat,
        ids: SpecialIds,
        seed: int,
    ) -> None:
        self._pool, self._negatives, self._prompt, self._ids, self._seed = pool, negatives, prompt, ids, seed
        self._order: list[int] = []
        self._epoch = -1
        self._batches: Iterator[Batch] = iter(())
        self._next_batch = (-1, -1)

    def example(self, number: int) -> Example:
        """Example ``number`` of the run: every question once an epoch, each epoch in its own order."""
        epoch, place = divmod(number, len(self._pool.questions))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self._pool.questions)))
            random.Random(f"{self._seed}:epoch:{epoch}").shuffle(self._order)
        question = self._pool.questions[self._order[place]]
        return self.draw(question, random.Random(f"{self._seed}:example:{number}"))

    def draw(self, question: TrainingQuestion, rng: random.Random) -> Example:
        """A random view of ``question``: its own passage or, at its negative ratio, one that does not answer it."""
        long = rng.random() < _LONG_RATIO
        max_tokens = _LONG_TOKENS if long else rng.randint(*_CROP_TOKENS)
        title_too = rng.random() < _TITLE_RATIO
        own = self._pool.passages[question.passage]
        if question.answer_start is None:
            return self._negative(question, own, _crop(own.text_ids, max_tokens, rng), with_title=title_too)
        if rng.random() < question.negative_ratio:
            passage, text_ids = self._distractor(question, own, max_tokens, rng)
            if text_ids:
                return self._negative(question, passage, text_ids, with_title=title_too)
        return self._positive(question, own, max_tokens, rng, with_title=title_too)

    def batch(self, number: int, batch_size: int) -> Batch:
        """Batch ``number`` of the run; cheap when asked for in order."""
        if (number, batch_size) != self._next_batch:
            self._batches = self.batches(batch_size, first_step=number)
        self._next_batch = (number + 1, batch_size)
        return next(self._batches)

    def batches(self, batch_size: int, *, first_step: int) -> Iterator[Batch]:
        """Batches from ``first_step`` on, without end.

        Examples are sorted by length within buckets of 40 batches and the batches shuffled, so that padding is small.
        """
        bucket, skip = divmod(first_step, _BATCHES_PER_BUCKETING)
        while True:
            size = batch_size * _BATCHES_PER_BUCKETING
            examples = [self.example(number) for number in range(bucket * size, (bucket + 1) * size)]
            examples.sort(key=lambda example: (len(example.input_ids), len(example.target_ids)))
            groups = [examples[i : i + batch_size] for i in range(0, size, batch_size)]
            random.Random(f"{self._seed}:bucket:{bucket}").shuffle(groups)
            for group in groups[skip:]:
                yield collate(group, self._ids)
            bucket, skip = bucket + 1, 0

    def _positive(
        self,
        question: TrainingQuestion,
        passage: TrainingPassage,
        max_tokens: int,
        rng: random.Random,
        *,
        with_title: bool,
    ) -> Example:
        assert question.answer_start is not None
        start, length = question.answer_start, len(question.answer_ids)
        lowest = max(0, start + length - max_tokens)
        highest = max(lowest, min(start, len(passage.text_ids) - max_tokens))
        offset = rng.randint(lowest, highest)
        title = passage.title_ids if with_title else ()
        input_ids = self._join(question, (*title, *passage.text_ids[offset : offset + max_tokens]))
        place = len(question.question_ids) + 2 + len(title) + start - offset
        if place + length >= len(input_ids):
            return self._negative(question, passage, (), with_title=False)
        return Example(input_ids, (*question.answer_ids, self._ids.sep_id), place)

    def _negative(
        self, question: TrainingQuestion, passage: TrainingPassage, text_ids: tuple[int, ...], *, with_title: bool
    ) -> Example:
        title = passage.title_ids if with_title else ()
        return Example(self._join(question, (*title, *text_ids)), (self._ids.sep_id,), None)

    def _distractor(
        self, question: TrainingQuestion, own: TrainingPassage, max_tokens: int, rng: random.Random
    ) -> tuple[TrainingPassage, tuple[int, ...]]:
        """A mined passage, or (one time in five) a part of the own passage without the answer."""
        near = self._negatives.get(question.id, ())
        if rng.random() < 0.2 or not near:
            return own, _part_without(question.answer_ids, own.text_ids, max_tokens, rng)
        passage = self._pool.passages[near[rng.randrange(len(near))]]
        return passage, _crop(passage.text_ids, max_tokens, rng)

    def _join(self, question: TrainingQuestion, passage_ids: tuple[int, ...]) -> tuple[int, ...]:
        frame = (self._ids.cls_id, self._ids.sep_id)
        return tuple(self._prompt.join_ids(list(question.question_ids), list(passage_ids), *frame))


def collate(examples: list[Example], ids: SpecialIds) -> Batch:
    """Pad examples on the right, to few distinct lengths; decoder input is CLS and the target shifted by one."""
    num_inputs = _rounded_up(max(len(example.input_ids) for example in examples), _INPUT_LENGTH_STEP)
    num_targets = _rounded_up(max(len(example.target_ids) for example in examples), _TARGET_LENGTH_STEP)
    input_ids = torch.full((len(examples), num_inputs), ids.pad_id)
    decoder_ids = torch.full((len(examples), num_targets), ids.pad_id)
    target_ids = torch.full((len(examples), num_targets), -100)
    gold_positions = torch.full((len(examples), num_targets), -1)
    attention_mask = torch.zeros_like(input_ids)
    spans = torch.zeros((len(examples), 2), dtype=torch.int64)
    for row, example in enumerate(examples):
        length, steps = len(example.input_ids), len(example.target_ids)
        input_ids[row, :length] = torch.tensor(example.input_ids)
        attention_mask[row, :length] = 1
        target_ids[row, :steps] = torch.tensor(example.target_ids)
        decoder_ids[row, :steps] = torch.tensor((ids.cls_id, *example.target_ids[:-1]))
        if example.answer_start is not None:
            last = example.answer_start + steps - 2
            spans[row] = torch.tensor((example.answer_start, last))
            gold_positions[row, : steps - 1] = torch.arange(example.answer_start, last + 1)
    return Batch(input_ids, attention_mask, decoder_ids, target_ids, spans, gold_positions)


def _rounded_up(length: int, step: int) -> int:
    return -(-length // step) * step


def _crop(text_ids: tuple[int, ...], max_tokens: int, rng: random.Random) -> tuple[int, ...]:
    offset = rng.randint(0, max(0, len(text_ids) - max_tokens))
    return text_ids[offset : offset + max_tokens]


def _part_without(
    answer_ids: tuple[int, ...], text_ids: tuple[int, ...], max_tokens: int, rng: random.Random
) -> tuple[int, ...]:
    """A crop of the text before, between or after the answer's occurrences; empty when none has 32 tokens."""
    starts = occurrences(answer_ids, text_ids)
    edges = [0, *(start + len(answer_ids) for start in starts)]
    ends = [*starts, len(text_ids)]
    gaps = [text_ids[low:high] for low, high in zip(edges, ends, strict=True) if high - low >= 32]
    return _crop(gaps[rng.randrange(len(gaps))], max_tokens, rng) if gaps else ()
