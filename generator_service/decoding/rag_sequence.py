"""RAG-Sequence: one passage for the whole answer, p(y|x) = sum_i p(d_i|x) prod_t p(y_t | x, d_i, y_<t).

Each passage is searched on its own, without the prior. The union of what was found is then ranked by the marginal:
`thorough` completes the missing A_i(y) = log p(y | x, d_i) from the cached encoder states, `fast` leaves them out: a
lower bound. A forced first token is no choice and does not count.

Unlike transformers 5.23, whose generate attends to padding here and drops the prior of one-token answers, rows never
see padding and the prior always counts.

Source: Lewis et al. 2020, section 2.5.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generator_service.decoding import marginal
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.program import Decoded, EmittedToken, LeftOut, ScoredHypothesis, TokenIds
from generator_service.decoding.search import Ending, Search
from generator_service.decoding.slices import SlicedScoring, plan_slices
from generator_service.models.base import DecodeState, EncodedRow, Seq2SeqModel, StepItem


@dataclass(frozen=True, slots=True)
class SequenceProgramOptions:
    """How hypotheses are scored, how many are returned and what is explained."""

    num_beams: int = 1
    num_hypotheses: int = 1
    is_thorough: bool = True
    leave_one_out: bool = False
    token_shares: bool = False
    max_slice_tokens: int = 1024
    """Teacher-forced tokens between two decode steps, where hypotheses are completed."""


@dataclass(slots=True)
class _Candidate:
    """A unique token sequence; `log_probs[i]` is A_i, -inf where unknown; `proposers` are the passages it came from."""

    ending: Ending
    log_probs: Tensor
    proposers: set[int]


class RagSequence:
    """One RAG-Sequence request. `log_prior` (N,) float32 is normalised over the rows; `search` has N problems."""

    def __init__(
        self, rows: Sequence[TokenIds], log_prior: Tensor, search: Search, options: SequenceProgramOptions
    ) -> None:
        self._rows = rows
        self._log_prior = log_prior
        self._search = search
        self._options = options
        self._missing: SlicedScoring | None = None
        self._model: Seq2SeqModel
        self._encoded: Sequence[EncodedRow]
        self._state: DecodeState
        self._tokens: Tensor

    @property
    def rows(self) -> Sequence[TokenIds]:
        """See `Program.rows`."""
        return self._rows

    @property
    def num_decoder_rows(self) -> int:
        """See `Program.num_decoder_rows`."""
        return self._options.num_beams * len(self._rows)

    @property
    def is_done(self) -> bool:
        """See `Program.is_done`."""
        return self._search.is_done and (self._missing is None or self._missing.is_done)

    def start(self, model: Seq2SeqModel, encoded: Sequence[EncodedRow]) -> None:
        """See `Program.start`."""
        self._model = model
        self._encoded = encoded
        self._state = model.open(encoded)
        self._tokens = torch.full((1, len(encoded)), model.spec.decoder_start_token_id, dtype=torch.int64)

    def items(self) -> Sequence[StepItem]:
        """See `Program.items`; none once the searches are over: `advance` then scores what is missing, in slices."""
        return [] if self._search.is_done else [StepItem(self._state, self._tokens)]

    def advance(self, logits: Sequence[Tensor]) -> Sequence[EmittedToken]:
        """See `Program.advance`; nothing is certain before the end. Passages whose search is over are dropped."""
        if self._missing is not None:
            self._missing.advance()
            return []
        raw = logits[0].float().transpose(0, 1).flatten(0, 1)
        log_probs = torch.log_softmax(raw, dim=-1)
        ranking = raw if isinstance(self._search, GreedySearch) else log_probs
        move = self._search.advance(ranking, log_probs[:, None])
        if self._search.is_done:
            if self._options.is_thorough:
                self._missing = self._score_missing()
            return []
        width = log_probs.shape[0] // self._state.num_rows
        kept = torch.unique_consecutive(move.parents // width)
        if move.parents.tolist() != list(range(log_probs.shape[0])):
            self._model.reorder(self._state, (move.parents % width).view(len(kept), -1).T, kept.tolist())
        self._tokens = move.tokens.view(len(kept), -1).T
        return []

    def finish(self) -> Decoded:
        """Completes the scores and ranks the hypotheses by log p(y|x)."""
        candidates = self._candidates
        if not candidates:
            return Decoded(())
        if self._missing is not None:
            self._complete(self._missing)
        matrix = torch.stack([each.log_probs for each in candidates.values()])
        totals = marginal.sequence_log_probability(self._log_prior, matrix)
        posteriors = marginal.sequence_posterior(self._log_prior, matrix).tolist()
        order = torch.argsort(totals, descending=True, stable=True).tolist()
        ids = list(candidates)
        scored = [
            ScoredHypothesis(ids[c], float(totals[c]), tuple(posteriors[c]), candidates[ids[c]].ending)
            for c in order[: self._options.num_hypotheses]
        ]
        left_out = self._left_out(candidates, matrix, order[0]) if self._options.leave_one_out else []
        shares = self._shares(scored[0].token_ids) if self._options.token_shares else []
        return Decoded(tuple(scored), tuple(left_out), tuple(shares))

    @functools.cached_property
    def _candidates(self) -> dict[tuple[int, ...], _Candidate]:
        """The unique hypotheses over all passages, with the A_i that the searches know; once these are over."""
        candidates: dict[tuple[int, ...], _Candidate] = {}
        for i, found in enumerate(self._search.hypotheses()):
            for each in found:
                unknown = torch.full((len(self._rows),), -torch.inf)
                candidate = candidates.setdefault(each.token_ids, _Candidate(each.ending, unknown, set()))
                candidate.log_probs[i] = each.log_probs[self._num_forced :, 0].sum()
                candidate.proposers.add(i)
        return candidates

    @property
    def _num_forced(self) -> int:
        return 0 if self._model.spec.forced_bos_token_id is None else 1

    @functools.cached_property
    def _incomplete(self) -> tuple[dict[tuple[int, ...], _Candidate], list[int]]:
        """The hypotheses that not every passage proposed, and the passages that lack one."""
        everyone = set(range(len(self._rows)))
        incomplete = {ids: each for ids, each in self._candidates.items() if each.proposers != everyone}
        return incomplete, sorted({i for each in incomplete.values() for i in everyone - each.proposers})

    def _score_missing(self) -> SlicedScoring | None:
        """The teacher-forced pass over the rows and hypotheses that need it."""
        incomplete, rows = self._incomplete
        if not incomplete:
            return None
        targets = list(incomplete)
        lengths = [len(self._rows[i]) for i in rows]
        plan = plan_slices(lengths, targets, max_tokens=self._options.max_slice_tokens)
        return SlicedScoring(self._model, [self._encoded[i] for i in rows], targets, plan)

    def _complete(self, missing: SlicedScoring) -> None:
        """Fills in the unknown A_i."""
        incomplete, rows = self._incomplete
        for candidate, log_probs in zip(incomplete.values(), missing.scores, strict=True):
            totals = log_probs[:, self._num_forced :].sum(-1)
            for i, total in zip(rows, totals, strict=True):
                if i not in candidate.proposers:
                    candidate.log_probs[i] = total

    def _shares(self, token_ids: tuple[int, ...]) -> list[marginal.TokenShare]:
        """The best hypothesis token by token, under every passage."""
        log_probs = self._model.score(self._encoded, [token_ids])[0].cpu()
        return marginal.sequence_shares(self._log_prior, log_probs[:, self._num_forced :])

    def _left_out(self, candidates: dict[tuple[int, ...], _Candidate], matrix: Tensor, answer: int) -> list[LeftOut]:
        """Ranks again without each passage, among the hypotheses that another one proposed: exactly a new decoding.

        The searches do not know the prior, so removing a passage removes its own hypotheses and nothing else.
        """
        if len(self._rows) < 2:
            return []
        ids = list(candidates)
        results = []
        for i in range(len(self._rows)):
            totals = marginal.sequence_log_probability(marginal.without(self._log_prior, i), matrix)
            open_to = torch.tensor([bool(each.proposers - {i}) for each in candidates.values()])
            best = int(totals.masked_fill(~open_to, -torch.inf).argmax())
            results.append(LeftOut(best != answer, True, ids[best], float(totals[answer])))
        return results
