"""Fusion-in-decoder: any program of one row, reading the encoder states of all passages joined into that row.

Source: Izacard & Grave 2021, arXiv 2007.01282.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from generator_service.decoding.program import EmittedToken, Program, TokenIds
from generator_service.models.base import EncodedRow, Seq2SeqModel, StepItem

Result = TypeVar("Result")


class Fused(Generic[Result]):
    """A program whose single row stands for the rows given here; `make` takes that row and its log prior, (1,) zero."""

    def __init__(self, rows: Sequence[TokenIds], make: Callable[[Sequence[TokenIds], Tensor], Program[Result]]) -> None:
        self._rows = rows
        self._program = make([[token for row in rows for token in row]], torch.zeros(1))

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`."""
        return self._rows

    @property
    def num_decoder_rows(self) -> int:
        """See `Program.num_decoder_rows`."""
        return self._program.num_decoder_rows

    @property
    def is_done(self) -> bool:
        """See `Program.is_done`."""
        return self._program.is_done

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """See `Program.start`."""
        self._program.start(model, [EncodedRow(torch.cat([row.states for row in encoded]))])

    def items(self) -> Sequence[StepItem]:
        """See `Program.items`."""
        return self._program.items()

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """See `Program.advance`."""
        return self._program.advance(logits)

    def finish(self) -> Result:
        """See `Program.finish`."""
        return self._program.finish()
