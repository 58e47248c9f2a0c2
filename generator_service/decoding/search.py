"""What every search over token sequences shares. A search knows scores and tokens, not passages or models.

Shape letters: B problems (independent searches advanced together), K beams of each, R = B x K rows (problem-major),
P passages whose token log-probabilities are recorded for each row, U tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from torch import Tensor

StopTest = Callable[[Sequence[int]], bool]
"""Tells whether a token sequence (decoder start excluded) contains a stop string."""


class Ending(Enum):
    """Why a hypothesis ends where it does."""

    END_OF_SEQUENCE = "end_of_sequence"
    LENGTH = "length"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished token sequence.

    `log_probs` (U, P) float32: the unconstrained log-probability of each token under each recorded passage.
    """

    token_ids: tuple[int, ...]
    log_probs: Tensor
    ending: Ending
    score: float


@dataclass(frozen=True, slots=True)
class Move:
    """The rows after a step: row r continues the earlier row `parents[r]` with `tokens[r]`.

    Both (R',) int64 on the CPU. The rows of problems that are over are not among them.
    """

    parents: Tensor
    tokens: Tensor


class Search(Protocol):
    """A search under way."""

    @property
    def is_done(self) -> bool:
        """Every problem has its hypotheses."""
        ...

    def advance(self, ranking: Tensor, evidence: Tensor) -> Move:
        """Chooses the next tokens.

        Args:
            ranking: (R, V) float32, what is ranked, for the rows of the last move. On the first step R may be B: one
                row per problem.
            evidence: (R, P, V) float32, the log-probabilities to record.
        """
        ...

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Per problem the hypotheses found, best first. Valid when done."""
        ...
