"""Beam search, token for token the one of transformers 5.

Several independent problems are advanced together (RAG-Sequence searches once per passage). A problem that is over
gives its rows up.

Source: transformers 5.23, `GenerationMixin._beam_search`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import ending_of
from generator_service.decoding.search import Ending, Hypothesis, Move, StopTest

_NEVER = -1.0e9
"""The score of a beam that does not exist; finite, so that sums stay ordered."""


@dataclass(frozen=True, slots=True)
class BeamOptions:
    """How wide to search and how finished hypotheses are ranked: score / (tokens ** length_penalty)."""

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False


@dataclass(frozen=True, slots=True)
class Candidates:
    """The 2K best continuations of each problem, best first."""

    scores: Tensor  # (B, 2K) float32
    parents: Tensor  # (B, 2K) int64, beam within the problem
    tokens: Tensor  # (B, 2K) int64


class BeamSearch:
    """A beam search over `num_problems` problems; starts from one row per problem and grows to K."""

    def __init__(
        self,
        *,
        num_problems: int,
        start_token_id: int,
        options: BeamOptions,
        constraints: Constraints,
        is_stopped: StopTest | None = None,
    ) -> None:
        beams = options.num_beams
        self._options = options
        self._constraints = constraints
        self._is_stopped = is_stopped
        self._prefixes = torch.full((num_problems, beams, 1), start_token_id, dtype=torch.int64)
        self._scores = torch.zeros((num_problems, beams))
        self._scores[:, 1:] = _NEVER
        self._recorded: Tensor | None = None
        placeholder = Hypothesis((), torch.empty(0), Ending.LENGTH, _NEVER)
        self._found = [[placeholder] * beams for _ in range(num_problems)]
        # The problems still searched; everything but `_found` has one place for each of them.
        self._numbers = list(range(num_problems))
        self._is_open = [True] * num_problems

    @property
    def is_done(self) -> bool:
        """No problem can improve on its hypotheses."""
        return not self._numbers

    def advance(self, ranking: Tensor, evidence: Tensor) -> Move:
        """See `Search.advance`; `ranking` must be log-probabilities."""
        problems, beams = self._scores.shape
        width = ranking.shape[0] // problems
        ranking = ranking.view(problems, width, -1).expand(-1, beams, -1)
        evidence = evidence.view(problems, width, evidence.shape[1], -1).expand(-1, beams, -1, -1)
        candidates = self._candidates(ranking)
        prefixes, recorded = self._extended(candidates, evidence)
        has_ended = self._has_ended(prefixes)
        self._collect(candidates, has_ended, prefixes, recorded)
        move = self._keep_running(candidates, has_ended, prefixes, recorded, width)
        self._close_problems()
        return self._without_closed(move)

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Per problem at most K hypotheses by length-penalised score, best first."""
        return [[each for each in found if each.score > _NEVER] for found in self._found]

    def _candidates(self, ranking: Tensor) -> Candidates:
        """Ranks the continuations of each problem; ranking (B, K, V)."""
        problems, beams, vocabulary = ranking.shape
        scores, indices = self._totals(ranking).view(problems, -1).topk(2 * beams)
        scores, indices = scores.cpu(), indices.cpu()
        return Candidates(scores, indices // vocabulary, indices % vocabulary)

    def _totals(self, ranking: Tensor) -> Tensor:
        """The scores (B, K, V) of every continuation; a new tensor."""
        problems, beams, vocabulary = ranking.shape
        flat = self._constraints.apply(ranking.reshape(problems * beams, vocabulary), self._prefixes.flatten(0, 1))
        return flat.view(problems, beams, vocabulary) + self._scores.to(flat.device)[:, :, None]

    def _extended(self, candidates: Candidates, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates' prefixes (B, 2K, 1 + U) and recorded log-probabilities (B, 2K, U, P)."""
        problem = torch.arange(candidates.tokens.shape[0])[:, None]
        prefixes = torch.cat([self._prefixes[problem, candidates.parents], candidates.tokens[:, :, None]], dim=2)
        device = evidence.device
        step = evidence[problem.to(device), candidates.parents.to(device), :, candidates.tokens.to(device)]
        step = step[:, :, None].cpu()
        if self._recorded is None:
            return prefixes, step
        return prefixes, torch.cat([self._recorded[problem, candidates.parents], step], dim=2)

    def _has_ended(self, prefixes: Tensor) -> Tensor:
        """Which candidates (B, 2K) end here."""
        constraints = self._constraints
        has_ended = prefixes[:, :, -1] == constraints.eos_token_id
        if prefixes.shape[2] - 1 >= constraints.max_new_tokens:
            has_ended = torch.ones_like(has_ended)
        if self._is_stopped is not None:
            stopped = [[self._is_stopped(ids) for ids in row] for row in prefixes[:, :, 1:].tolist()]
            has_ended = has_ended | torch.tensor(stopped)
        return has_ended

    def _collect(self, candidates: Candidates, has_ended: Tensor, prefixes: Tensor, recorded: Tensor) -> None:
        """Takes up the ended ones among the K best candidates of each open problem."""
        beams = self._options.num_beams
        length = prefixes.shape[2] - 1
        scores = candidates.scores / (length**self._options.length_penalty)
        for b, is_open in enumerate(self._is_open):
            if not is_open:
                continue
            found = self._found[self._numbers[b]]
            for rank in has_ended[b, :beams].nonzero()[:, 0].tolist():
                ids = prefixes[b, rank, 1:].tolist()
                ending = ending_of(ids, self._constraints, self._is_stopped) or Ending.LENGTH
                found = [*found, Hypothesis(tuple(ids), recorded[b, rank].clone(), ending, float(scores[b, rank]))]
            self._found[self._numbers[b]] = sorted(found, key=lambda each: each.score, reverse=True)[:beams]
            self._is_open[b] = not has_ended[b].all()

    def _keep_running(
        self, candidates: Candidates, has_ended: Tensor, prefixes: Tensor, recorded: Tensor, width: int
    ) -> Move:
        """Fills the K beams of each problem with its best candidates that have not ended."""
        running = candidates.scores + has_ended * _NEVER
        kept = self._kept(running)
        problem = torch.arange(kept.shape[0])[:, None]
        self._prefixes = prefixes[problem, kept]
        self._scores = running[problem, kept]
        self._recorded = recorded[problem, kept]
        parents = candidates.parents[problem, kept].clamp(max=width - 1) + problem * width
        return Move(parents=parents.flatten(), tokens=self._prefixes[:, :, -1].flatten())

    def _kept(self, running: Tensor) -> Tensor:
        """The columns (B, K) of the candidates to go on with, by their scores (B, 2K)."""
        return running.topk(self._options.num_beams).indices

    def _close_problems(self) -> None:
        """Ends the problems whose best running beam cannot beat their worst hypothesis any more."""
        options = self._options
        length = self._prefixes.shape[2] - 1
        hoped = self._constraints.max_new_tokens if options.early_stopping == "never" else length
        if options.length_penalty <= 0.0:
            hoped = length
        best_running = (self._scores.amax(dim=1) / (hoped**options.length_penalty)).tolist()
        for b, number in enumerate(self._numbers):
            worst = self._found[number][-1].score
            is_full = worst > _NEVER
            if best_running[b] <= worst or (is_full and options.early_stopping is True):
                self._is_open[b] = False

    def _without_closed(self, move: Move) -> Move:
        """Gives up the rows of closed problems."""
        if all(self._is_open):
            return move
        kept = [b for b, is_open in enumerate(self._is_open) if is_open]
        self._keep(kept)
        parents, tokens = (each.view(len(self._is_open), -1)[kept].flatten() for each in (move.parents, move.tokens))
        self._is_open = [True] * len(kept)
        return Move(parents, tokens)

    def _keep(self, problems: list[int]) -> None:
        """Goes on with these problems alone, as numbered now."""
        self._numbers = [self._numbers[b] for b in problems]
        self._prefixes, self._scores = self._prefixes[problems], self._scores[problems]
        assert self._recorded is not None
        self._recorded = self._recorded[problems]
