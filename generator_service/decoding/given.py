"""Scores answers that are given: log p(y|x), posteriors and token shares under either RAG model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from generator_service.decoding import marginal
from generator_service.decoding.program import EmittedToken, TokenIds
from generator_service.decoding.slices import SlicedScoring, plan_slices
from generator_service.models.base import EncodedRow, Seq2SeqModel, StepItem


@dataclass(frozen=True, slots=True)
class GivenScore:
    """The probability of one given answer; vectors are in the passages' order."""

    log_probability: float
    posteriors: tuple[float, ...]
    passage_log_probabilities: tuple[float, ...]
    shares: tuple[marginal.TokenShare, ...]


class ScoreGiven:
    """Teacher forcing of all targets (end-of-sequence included), in slices: it feeds no step, `advance` does the work.

    `per_token` chooses RAG-Token's marginal instead of RAG-Sequence's; `max_slice_tokens` bounds the work of a slice.
    """

    def __init__(
        self,
        rows: Sequence[TokenIds],
        log_prior: Tensor,
        targets: Sequence[TokenIds],
        *,
        per_token: bool,
        max_slice_tokens: int = 512,
    ) -> None:
        self._rows = rows
        self._log_prior = log_prior
        self._targets = targets
        self._per_token = per_token
        self._plan = plan_slices([len(row) for row in rows], targets, max_tokens=max_slice_tokens)
        self._scoring: SlicedScoring
        self._model: Seq2SeqModel

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`."""
        return self._rows

    @property
    def num_decoder_rows(self) -> int:
        """Rows of the largest slice."""
        return max((each.last - each.first) * len(each.targets) for each in self._plan)

    @property
    def is_done(self) -> bool:
        """Every target is scored under every row."""
        return self._scoring.is_done

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """See `Program.start`."""
        self._model = model
        self._scoring = SlicedScoring(model, encoded, self._targets, self._plan)

    def items(self) -> Sequence[StepItem]:
        """Nothing to step."""
        return []

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """Scores one slice; there are no logits to take."""
        self._scoring.advance()
        return []

    def finish(self) -> list[GivenScore]:
        """The targets' scores, in their order."""
        return [self._scored(each) for each in self._scoring.scores]

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
