"""A decoding, and what its rows say of it besides: whether they hold any answer, and whether one is known without them.

The distribution of the first token that is a choice (a forced one before it is none) tells how probable the empty
answer is under every row, at no further cost. The closed-book comparison reads the question once more, without
passages, as one more encoder row: it has no part in the decoding, which stays what it was, and only scores the answers
that came out.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from generator_service.decoding.program import Decoded, EmittedToken, Program, TokenIds
from generator_service.models.base import EncodedRow, Seq2SeqModel, StepItem


class WithEvidence:
    """A program whose result has `no_answer`, and `closed_book` where a `closed_book_row` is given."""

    def __init__(self, program: Program[Decoded], closed_book_row: TokenIds | None = None) -> None:
        self._program = program
        self._closed_book_rows = [] if closed_book_row is None else [closed_book_row]
        self._no_answer: tuple[float, ...] = ()
        self._model: Seq2SeqModel
        self._closed_book: Sequence[EncodedRow]

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`; the closed-book row is the last."""
        return [*self._program.rows, *self._closed_book_rows]

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
        num_rows = len(self._program.rows)
        self._num_steps, self._num_forced = 0, 0 if model.spec.forced_bos_token_id is None else 1
        self._model, self._closed_book = model, encoded[num_rows:]
        self._program.start(model, encoded[:num_rows])

    def items(self) -> Sequence[StepItem]:
        """See `Program.items`."""
        return self._program.items()

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """See `Program.advance`."""
        if logits:
            if self._num_steps == self._num_forced:
                self._no_answer = _log_probabilities(logits[0], self._model.spec.eos_token_id)
            self._num_steps += 1
        return self._program.advance(logits)

    def finish(self) -> Decoded:
        """See `Program.finish`."""
        decoded = self._program.finish()
        closed_book: tuple[float, ...] = ()
        if self._closed_book and decoded.hypotheses:
            scores = self._model.score(self._closed_book, [each.token_ids for each in decoded.hypotheses])
            closed_book = tuple(float(each[0, self._num_forced :].sum()) for each in scores)
        return replace(decoded, no_answer=self._no_answer, closed_book=closed_book)


def _log_probabilities(logits: Tensor, token: int) -> tuple[float, ...]:
    """Of one token as the next, per row; logits (K, N, V) or, where several tokens were fed, (K, N, S, V)."""
    first = logits[0] if logits.dim() == 3 else logits[0, :, 0]
    return tuple(first.float().log_softmax(-1)[:, token].tolist())
