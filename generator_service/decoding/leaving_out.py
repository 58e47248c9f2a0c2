"""Leave-one-out by decoding again: what a program's answer would be without each of its passages.

The passages stay the ones at hand: the prior of the others is normalised again and none moves up. The encoder's states
are those of the program itself, so removing a passage costs decoding and no encoding.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generator_service.decoding import marginal
from generator_service.decoding.program import Decoded, EmittedToken, LeftOut, Program, TokenIds
from generator_service.models.base import EncodedRow, Seq2SeqModel, StepItem

_MAX_ROWS_AT_ONCE = 64
"""Rows, of the encoder or the decoder, of decodings that run side by side; more only where one alone has more."""

Marginal = Callable[[Tensor, Tensor], Tensor]
"""Log prior (N,) and token log-probabilities (N, U) to log p(y|x) ()."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The decoding without passage `index`."""

    index: int
    program: Program[Decoded]

    @property
    def num_rows(self) -> int:
        """Of the decoder, or of the encoder where they are more: those cost memory too."""
        return max(self.program.num_decoder_rows, len(self.program.rows))


class LeavingOut:
    """A program, then the same decoding without each passage whose removal the program does not know exactly."""

    def __init__(
        self,
        program: Program[Decoded],
        without: Callable[[int], Program[Decoded]],
        log_prior: Tensor,
        combine: Marginal | None,
    ) -> None:
        """Takes programs that are not started.

        Args:
            program: Decodes with all passages.
            without: Makes the program over all rows but one.
            log_prior: (N,) float32, normalised over the program's rows.
            combine: The answer's probability from what each passage gives it; None where one decoder reads all
                passages at once (fusion-in-decoder).
        """
        self._program: Program[Decoded] | None = program
        self._rows = program.rows
        self._waiting = deque(_Part(i, without(i)) for i in range(len(program.rows)))
        rows = [part.program.num_decoder_rows for part in self._waiting]
        self._num_decoder_rows = max(program.num_decoder_rows, *rows, min(sum(rows), _MAX_ROWS_AT_ONCE))
        self._log_prior = log_prior
        self._combine = combine
        self._decoded: Decoded | None = None
        self._running: list[_Part] = []
        self._num_items: list[int] = []
        self._left_out: dict[int, LeftOut] = {}
        self._log_probs = torch.empty(0)
        self._model: Seq2SeqModel
        self._encoded: Sequence[EncodedRow]

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`."""
        return self._rows

    @property
    def num_decoder_rows(self) -> int:
        """The most that are held at once."""
        return self._num_decoder_rows

    @property
    def is_done(self) -> bool:
        """See `Program.is_done`."""
        return self._decoded is not None and not self._running

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """See `Program.start`."""
        assert self._program is not None
        self._model = model
        self._encoded = encoded
        self._program.start(model, encoded)

    def items(self) -> Sequence[StepItem]:
        """See `Program.items`."""
        if self._program is not None:
            return self._program.items()
        groups = [part.program.items() for part in self._running]
        self._num_items = [len(group) for group in groups]
        return [item for group in groups for item in group]

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """See `Program.advance`."""
        if self._program is not None:
            tokens = self._program.advance(logits)
            if self._program.is_done:
                self._compare(self._program.finish())
                self._program = None  # Its rows are free.
                self._let_in()
            return tokens
        mine = iter(logits)
        for part, count in zip(self._running, self._num_items, strict=True):
            part.program.advance([next(mine) for _ in range(count)])
        for part in [part for part in self._running if part.program.is_done]:
            self._running.remove(part)
            self._note(part.index, part.program.finish())
        self._let_in()
        return []

    def finish(self) -> Decoded:
        """See `Program.finish`."""
        assert self._decoded is not None
        left_out = tuple(self._left_out[i] for i in sorted(self._left_out))
        return replace(self._decoded, left_out=left_out)

    def _compare(self, decoded: Decoded) -> None:
        """Takes the answer and sees what is still to be decoded."""
        self._decoded = decoded
        self._left_out = {i: each for i, each in enumerate(decoded.left_out) if each.exact}
        self._waiting = deque(part for part in self._waiting if part.index not in self._left_out)
        if not decoded.hypotheses:
            self._waiting.clear()
        elif self._waiting and self._combine is not None:
            self._log_probs = self._score(self._encoded, decoded.hypotheses[0].token_ids)

    def _let_in(self) -> None:
        """Starts the next decodings as far as rows allow, one at least."""
        rows = sum(part.num_rows for part in self._running)
        while self._waiting:
            rows += self._waiting[0].num_rows
            if self._running and rows > _MAX_ROWS_AT_ONCE:
                break
            part = self._waiting.popleft()
            part.program.start(self._model, _others(self._encoded, part.index))
            self._running.append(part)

    def _note(self, index: int, decoded: Decoded) -> None:
        """Compares the answer without a passage; the log-probability is the present answer's without it."""
        assert self._decoded is not None
        answer = self._decoded.hypotheses[0].token_ids
        ids = decoded.hypotheses[0].token_ids if decoded.hypotheses else None
        if self._combine is not None:
            log_probability = self._combine(marginal.without(self._log_prior, index), self._log_probs)
        else:
            joined = EncodedRow(torch.cat([row.states for row in _others(self._encoded, index)]))
            log_probability = self._score([joined], answer).sum()
        self._left_out[index] = LeftOut(ids != answer, ids is not None, ids, float(log_probability))

    def _score(self, rows: Sequence[EncodedRow], answer: TokenIds) -> Tensor:
        """The token log-probabilities (N, U) that count: a forced first token is no choice."""
        num_forced = 0 if self._model.spec.forced_bos_token_id is None else 1
        return self._model.score(rows, [answer])[0].cpu()[:, num_forced:]


def _others(rows: Sequence[EncodedRow], index: int) -> list[EncodedRow]:
    return [*rows[:index], *rows[index + 1 :]]
