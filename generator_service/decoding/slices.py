"""Teacher forcing in slices: log p of many targets under many encoder rows, a bounded amount of work at a time."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generator_service.decoding.program import TokenIds
from generator_service.models.base import DecodeState, EncodedRow, Seq2SeqModel

_ENCODER_TOKENS_PER_TARGET_TOKEN = 10
"""Projecting an encoder token's keys and values costs about a tenth of decoding a token (bart-base, t5-small)."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `first` to `last` (exclusive) under some targets, by number."""

    first: int
    last: int
    targets: Sequence[int]


def plan_slices(row_lengths: Sequence[int], targets: Sequence[TokenIds], *, max_tokens: int) -> list[Slice]:
    """Cuts rows x targets into slices of at most `max_tokens` decoded tokens, or of one target under one row.

    All targets of some rows come one after the other; targets that begin alike lie together, where the model decodes
    their common beginning once.
    """
    groups = list(_target_groups(targets, max_tokens))
    largest = max(sum(len(targets[number]) for number in group) for group in groups)
    return [
        Slice(first, last, group)
        for first, last in _row_groups(row_lengths, largest, max_tokens)
        for group in groups
    ]  # fmt: skip


def _target_groups(targets: Sequence[TokenIds], max_tokens: int) -> Iterator[list[int]]:
    group: list[int] = []
    size = 0
    for number in sorted(range(len(targets)), key=lambda number: tuple(targets[number])):
        if group and size + len(targets[number]) > max_tokens:
            yield group
            group, size = [], 0
        group.append(number)
        size += len(targets[number])
    yield group


def _row_groups(row_lengths: Sequence[int], num_target_tokens: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    first = 0
    size = 0.0
    for number, length in enumerate(row_lengths):
        cost = num_target_tokens + length / _ENCODER_TOKENS_PER_TARGET_TOKEN
        if number > first and size + cost > max_tokens:
            yield first, number
            first, size = number, 0.0
        size += cost
    yield first, len(row_lengths)


class SlicedScoring:
    """Scores slice by slice; `scores` holds per target a float32 tensor (N, U) on the CPU, filled when done."""

    def __init__(
        self, model: Seq2SeqModel, rows: Sequence[EncodedRow], targets: Sequence[TokenIds], plan: Sequence[Slice]
    ) -> None:
        """Takes at least one row, one target, and the slices of both."""
        self._model = model
        self._rows = rows
        self._targets = targets
        self._todo = deque(plan)
        self._open: tuple[int, DecodeState] | None = None
        self.scores = [torch.empty(len(rows), len(target)) for target in targets]

    @property
    def is_done(self) -> bool:
        """Nothing is left."""
        return not self._todo

    def advance(self) -> None:
        """Does the next slice."""
        part = self._todo.popleft()
        rows = self._rows[part.first : part.last]
        self._keep_open(part, rows)
        for number, scores in zip(part.targets, self._score(rows, part.targets), strict=True):
            self.scores[number][part.first : part.last] = scores
        if self.is_done:
            self._open = None

    def _score(self, rows: Sequence[EncodedRow], targets: Sequence[int]) -> list[Tensor]:
        return self._model.score(rows, [self._targets[number] for number in targets])

    def _keep_open(self, part: Slice, rows: Sequence[EncodedRow]) -> None:
        """An open state keeps the rows' cross-attention, which else every one of their slices would project again."""
        if self._open is not None and self._open[0] == part.first:
            return
        self._open = None
        if self._todo and self._todo[0].first == part.first:
            self._open = (part.first, self._model.open(rows))
