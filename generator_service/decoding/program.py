"""A decoding program: one request's way from encoder rows to scored hypotheses, advanced by the engine.

The engine encodes `rows`, calls `start`, repeats `items` -> model step -> `advance` until `is_done`, then `finish`.
While a program has no items, it takes no part in the steps, and `advance([])` does a slice of its own work.
Every call comes from the model's thread. Programs of different requests are stepped together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from generator_service.decoding.marginal import TokenShare
from generator_service.decoding.search import Ending
from generator_service.models.base import EncodedRow, Seq2SeqModel, StepItem

TokenIds = Sequence[int]
Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True, slots=True)
class EmittedToken:
    """A token that is certain to be in the answer, as soon as it is chosen."""

    token_id: int
    share: TokenShare


@dataclass(frozen=True, slots=True)
class ScoredHypothesis:
    """A token sequence with its exact probability (a lower bound for RAG-Sequence fast).

    `posteriors` has one entry per passage the program was given, in their order; empty without passages.
    """

    token_ids: tuple[int, ...]
    log_probability: float
    posteriors: tuple[float, ...]
    ending: Ending


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What removing one passage does. `token_ids` are the answer's without it, None where not known."""

    flips: bool
    exact: bool
    token_ids: tuple[int, ...] | None
    log_probability: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """A program's result: hypotheses best first; `left_out` and `shares` (of the best) when asked for.

    `no_answer` (one per encoder row: log p of the empty answer) and `closed_book` (one per hypothesis: its log p
    without passages) are there where `WithEvidence` saw to it.
    """

    hypotheses: tuple[ScoredHypothesis, ...]
    left_out: tuple[LeftOut, ...] = ()
    shares: tuple[TokenShare, ...] = ()
    no_answer: tuple[float, ...] = ()
    closed_book: tuple[float, ...] = ()


class Program(Protocol[Result]):
    """One request under way."""

    @property
    def rows(self) -> Sequence[TokenIds]:
        """The encoder inputs, without padding."""
        ...

    @property
    def num_decoder_rows(self) -> int:
        """Decoder rows that the program holds while it runs: K x N."""
        ...

    @property
    def is_done(self) -> bool:
        """No further step is needed."""
        ...

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """Opens the decode state. `encoded` are the encoder's outputs for `rows`."""
        ...

    def items(self) -> Sequence[StepItem]:
        """What the next step feeds the model; empty while the program works without it."""
        ...

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """Takes the logits of `items`, chooses the next tokens and returns those that are certain.

        The logits are valid until the model's next step: what is kept of them must be copied. Without items, there are
        none, and the program does a slice of its own work.
        """
        ...

    def finish(self) -> Result:
        """The result, once `is_done`; may run the model once more, from the encoder states."""
        ...
