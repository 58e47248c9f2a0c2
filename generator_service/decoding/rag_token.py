"""RAG-Token: every token draws its passage anew, p(y|x) = prod_t sum_i p(d_i|x) p(y_t | x, d_i, y_<t).

One row per beam is ranked by the marginal; the decode state holds K x N rows, and the N of a beam share a prefix. With
one row and a prior of one it is plain seq2seq decoding, which serves fusion-in-decoder (see `fused`) and closed book.

Source: Lewis et al. 2020, section 2.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generator_service.decoding import marginal
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.program import Decoded, EmittedToken, LeftOut, ScoredHypothesis, TokenIds
from generator_service.decoding.search import Hypothesis, Search
from generator_service.decoding.speculation import LookupDrafter
from generator_service.models.base import DecodeState, EncodedRow, Seq2SeqModel, StepItem

_MAX_ROWS_FOR_DRAFTS = 32
"""Decoder rows of a step from which drafts cost as much as they save: there a step's time grows with every token (one
core of an AMD EPYC Zen 5, default generator: a drafted token costs 0.28 of a step of 5 rows, 0.6 of one of 40)."""


@dataclass(frozen=True, slots=True)
class TokenProgramOptions:
    """How to combine the rows.

    `num_rows` is K, the beams or samples; `leave_one_out` needs a greedy search; `draft_tokens` is the longest draft of
    a greedy search, 0 for none.
    """

    num_rows: int = 1
    num_hypotheses: int = 1
    leave_one_out: bool = False
    token_shares: bool = False
    draft_tokens: int = 0


class RagToken:
    """One RAG-Token request. `log_prior` (N,) float32 is normalised over the rows."""

    def __init__(
        self, rows: Sequence[TokenIds], log_prior: Tensor, search: Search, options: TokenProgramOptions
    ) -> None:
        self._rows = rows
        self._log_prior = log_prior
        self._search = search
        self._options = options
        self._flipped = torch.zeros(len(rows), dtype=torch.bool)
        self._draft: list[int] = []
        self._drafter: LookupDrafter | None = None
        if options.draft_tokens and isinstance(search, GreedySearch) and search.is_certain:
            self._drafter = LookupDrafter(rows, max_tokens=options.draft_tokens)
        self._model: Seq2SeqModel
        self._state: DecodeState
        self._tokens: Tensor

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`."""
        return self._rows

    @property
    def num_decoder_rows(self) -> int:
        """See `Program.num_decoder_rows`."""
        return self._options.num_rows * self._log_prior.shape[0]

    @property
    def is_done(self) -> bool:
        """See `Program.is_done`."""
        return self._search.is_done

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """See `Program.start`."""
        samples = self._options.num_rows if isinstance(self._search, GreedySearch) else 1
        self._model = model
        self._state = model.open(encoded, num_beams=samples)
        self._tokens = torch.full((samples, len(encoded)), model.spec.decoder_start_token_id, dtype=torch.int64)
        self._rows_before = model.counters["decoder_rows"]

    def items(self) -> Sequence[StepItem]:
        """See `Program.items`; a draft is fed together with the token before it."""
        self._draft = self._next_draft()
        if not self._draft:
            return [StepItem(self._state, self._tokens)]
        draft = torch.tensor(self._draft).expand(*self._tokens.shape, -1)
        return [StepItem(self._state, torch.cat([self._tokens[..., None], draft], -1))]

    def _next_draft(self) -> list[int]:
        """Guesses for this step, while a step for all requests is small enough to gain from them."""
        if self._drafter is None:
            return []
        assert isinstance(self._search, GreedySearch)
        num_rows = self._model.counters["decoder_rows"]
        last_step_rows, self._rows_before = num_rows - self._rows_before, num_rows
        if last_step_rows > _MAX_ROWS_FOR_DRAFTS:
            return []
        return self._drafter.draft(self._search.token_ids, room=self._search.num_tokens_left - 1)

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """See `Program.advance`; greedy decoding of one sequence emits each token at once.

        A draft is followed as long as its next token is the one that is chosen anyway.
        """
        if self._drafter is None or not self._draft:
            return self._choose(logits[0])
        emitted = list(self._choose(logits[0][:, :, 0]))
        num_right = 0
        while not self.is_done and num_right < len(self._draft) and emitted[-1].token_id == self._draft[num_right]:
            num_right += 1
            emitted.extend(self._choose(logits[0][:, :, num_right]))
        self._model.rewind(self._state, len(self._draft) - num_right)
        self._drafter.record(len(self._draft), num_right)
        return emitted

    def _choose(self, logits: Tensor) -> Sequence[EmittedToken]:
        """Takes the logits (K, N, V) after one token of each row and chooses the next."""
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        log_prior = self._log_prior.to(log_probs.device)
        ranking = marginal.step_marginal(log_prior, log_probs)
        alternatives = self._without_each(ranking, log_probs, log_prior)
        move = self._search.advance(ranking, log_probs)
        num_rows = self._log_prior.shape[0]
        if not self.is_done:
            if move.parents.tolist() != list(range(log_probs.shape[0])):
                self._model.reorder(self._state, move.parents[:, None].expand(-1, num_rows))
            self._tokens = move.tokens[:, None].expand(-1, num_rows)
        if not isinstance(self._search, GreedySearch) or self._options.num_rows > 1:
            return []
        token = self._search.newest[0]
        if alternatives is not None:
            self._flipped |= alternatives.cpu() != token
        share = marginal.token_shares(log_prior, log_probs[0, :, token, None])[0]
        return [EmittedToken(token, share)]

    def finish(self) -> Decoded:
        """The hypotheses, best first: by the search's order, or by probability for samples."""
        found = [each for problem in self._search.hypotheses() for each in problem]
        scored = [self._scored(each) for each in found]
        if len(self._search.hypotheses()) > 1:
            order = sorted(range(len(found)), key=lambda i: scored[i].log_probability, reverse=True)
            found, scored = [found[i] for i in order], [scored[i] for i in order]
        if not found:
            return Decoded(())
        kept = slice(0, self._options.num_hypotheses)
        left_out = self._left_out(found[0]) if self._options.leave_one_out else ()
        shares = marginal.token_shares(self._log_prior, found[0].log_probs.T) if self._options.token_shares else ()
        return Decoded(tuple(scored[kept]), tuple(left_out), tuple(shares))

    def _scored(self, hypothesis: Hypothesis) -> ScoredHypothesis:
        token_log_probs = self._counted(hypothesis)
        return ScoredHypothesis(
            hypothesis.token_ids,
            float(marginal.token_log_probability(self._log_prior, token_log_probs)),
            tuple(marginal.token_posterior(self._log_prior, token_log_probs).tolist()),
            hypothesis.ending,
        )

    def _counted(self, hypothesis: Hypothesis) -> Tensor:
        """The token log-probabilities (N, U) that count: a forced first token is no choice."""
        num_forced = 0 if self._model.spec.forced_bos_token_id is None else 1
        return hypothesis.log_probs[num_forced:].T

    def _without_each(self, ranking: Tensor, log_probs: Tensor, log_prior: Tensor) -> Tensor | None:
        """The token (N,) greedy decoding would choose without each passage, while the answer is still the same."""
        count = log_prior.shape[0]
        if not self._options.leave_one_out or not isinstance(self._search, GreedySearch) or count < 2:
            return None
        rankings = [marginal.step_marginal(marginal.without(log_prior, i), log_probs[0]) for i in range(count)]
        return self._search.preview(torch.stack(rankings))

    def _left_out(self, answer: Hypothesis) -> list[LeftOut]:
        """Greedy decoding: a step that would have chosen differently is certain to change the answer."""
        count = self._log_prior.shape[0]
        if count < 2:
            return []
        results = []
        for i, flips in enumerate(self._flipped.tolist()):
            total = marginal.token_log_probability(marginal.without(self._log_prior, i), self._counted(answer))
            results.append(LeftOut(flips, not flips, None if flips else answer.token_ids, float(total)))
        return results
