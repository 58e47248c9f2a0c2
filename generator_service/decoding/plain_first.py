"""Decodes as if no words were forced, and again with them only where an answer lacks one.

So an answer that has the words anyway is the very answer that would have come without asking for them.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from generator_service.decoding.program import Decoded, EmittedToken, Program, TokenIds
from generator_service.models.base import EncodedRow, Seq2SeqModel, StepItem


class PlainFirst:
    """Two programs over the same rows, which are encoded once; nothing is certain before the end."""

    def __init__(
        self, plain: Program[Decoded], forced: Program[Decoded], has_words: Callable[[TokenIds], bool]
    ) -> None:
        self._rows = plain.rows
        self._num_decoder_rows = max(plain.num_decoder_rows, forced.num_decoder_rows)
        self._has_words = has_words
        self._running = plain
        self._forced = forced
        self._plain_result: Decoded | None = None
        self._found: Decoded | None = None
        self._model: Seq2SeqModel
        self._encoded: Sequence[EncodedRow]

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`."""
        return self._rows

    @property
    def num_decoder_rows(self) -> int:
        """Those of the larger program: they run one after the other."""
        return self._num_decoder_rows

    @property
    def is_done(self) -> bool:
        """See `Program.is_done`."""
        return self._found is not None

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """See `Program.start`."""
        self._model = model
        self._encoded = encoded
        self._running.start(model, encoded)

    def items(self) -> Sequence[StepItem]:
        """See `Program.items`."""
        return self._running.items()

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """See `Program.advance`."""
        self._running.advance(logits)
        if not self._running.is_done:
            return []
        decoded = self._running.finish()
        if self._plain_result is not None:
            self._found = _merged(self._plain_result, decoded, self._has_words)
        elif decoded.hypotheses and all(self._has_words(each.token_ids) for each in decoded.hypotheses):
            self._found = decoded
        else:
            self._plain_result = decoded
            self._running = self._forced
            self._forced.start(self._model, self._encoded)
        return []

    def finish(self) -> Decoded:
        """See `Program.finish`."""
        assert self._found is not None
        return self._found


def _merged(plain: Decoded, forced: Decoded, has_words: Callable[[TokenIds], bool]) -> Decoded:
    """The plain answer where it has the words, then the others that were found."""
    if not plain.hypotheses or not has_words(plain.hypotheses[0].token_ids):
        return forced
    best = plain.hypotheses[0]
    others = [each for each in forced.hypotheses if each.token_ids != best.token_ids]
    return Decoded((best, *others[: len(plain.hypotheses) - 1]), shares=plain.shares)
