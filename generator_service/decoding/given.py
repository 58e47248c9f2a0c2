"""Scores answers that are given: log p(y|x), posteriors and token shares under either RAG model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from generator_service.decoding import marginal
from generator_service.decoding.program import EmittedToken, TokenIds
from generator_service.models.base import EncodedRow, Seq2SeqModel, StepItem


@dataclass(frozen=True, slots=True)
class GivenScore:
    """The probability of one given answer; vectors are in the passages' order."""

    log_probability: float
    posteriors: tuple[float, ...]
    passage_log_probabilities: tuple[float, ...]
    shares: tuple[marginal.TokenShare, ...]


class ScoreGiven:
    """A program without steps: one teacher-forced pass over all targets (end-of-sequence included)."""

    def __init__(
        self, rows: Sequence[TokenIds], log_prior: Tensor, targets: Sequence[TokenIds], *, per_token: bool
    ) -> None:
        self._rows = rows
        self._log_prior = log_prior
        self._targets = targets
        self._per_token = per_token
        self._model: Seq2SeqModel
        self._encoded: Sequence[EncodedRow]

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`."""
        return self._rows

    @property
    def num_decoder_rows(self) -> int:
        """Rows of the scoring pass."""
        return len(self._rows) * len(self._targets)

    @property
    def is_done(self) -> bool:
        """There is nothing to step."""
        return True

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """See `Program.start`."""
        self._model = model
        self._encoded = encoded

    def items(self) -> Sequence[StepItem]:
        """Nothing to step."""
        return []

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """Never called."""
        raise AssertionError("a scoring program has no steps")

    def finish(self) -> list[GivenScore]:
        """Scores every target. `per_token` chooses RAG-Token's marginal instead of RAG-Sequence's."""
        return [self._scored(each.cpu()) for each in self._model.score(self._encoded, self._targets)]

    def _scored(self, log_probs: Tensor) -> GivenScore:
        """Marginalises the token log-probabilities (N, U) of one target."""
        log_prior = self._log_prior
        if self._model.spec.forced_bos_token_id is not None:
            log_probs = log_probs[:, 1:]
        totals = log_probs.sum(-1)
        if self._per_token:
            log_probability = marginal.token_log_probability(log_prior, log_probs)
            posterior = marginal.token_posterior(log_prior, log_probs)
            shares = marginal.token_shares(log_prior, log_probs)
        else:
            log_probability = marginal.sequence_log_probability(log_prior, totals)
            posterior = marginal.sequence_posterior(log_prior, totals)
            shares = marginal.sequence_shares(log_prior, log_probs)
        return GivenScore(float(log_probability), tuple(posterior.tolist()), tuple(totals.tolist()), tuple(shares))
