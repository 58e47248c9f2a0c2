"""One sequence per problem, token by token: the most likely token, or a sampled one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from generator_service.decoding.constraints import Constraints
from generator_service.decoding.search import Ending, Hypothesis, Move, StopTest

Choice = Callable[[Tensor], Tensor]
"""Scores (R, V) float32 to chosen tokens (R,) int64."""


def most_likely(scores: Tensor) -> Tensor:
    """Greedy choice."""
    return scores.argmax(dim=-1)


class GreedySearch:
    """Follows one sequence per problem until each has ended. `ranking` may be raw logits: only its order counts."""

    def __init__(
        self,
        *,
        num_problems: int,
        start_token_id: int,
        constraints: Constraints,
        choose: Choice = most_likely,
        is_stopped: StopTest | None = None,
    ) -> None:
        self._constraints = constraints
        self._choose = choose
        self._is_stopped = is_stopped
        self._prefixes = torch.full((num_problems, 1), start_token_id, dtype=torch.int64)
        self._recorded: list[Tensor] = []
        self._found: list[Hypothesis | None] = [None] * num_problems

    @property
    def is_done(self) -> bool:
        """Every problem's sequence has ended."""
        return all(found is not None for found in self._found)

    def preview(self, ranking: Tensor) -> Tensor:
        """The tokens (R,) that another ranking (R, V) of a single problem's next token would choose."""
        prefixes = self._prefixes.expand(ranking.shape[0], -1)
        return self._choose(self._constraints.apply(ranking, prefixes))

    def advance(self, ranking: Tensor, evidence: Tensor) -> Move:
        """See `Search.advance`; rows of ended problems go on, and are ignored."""
        rows = torch.arange(ranking.shape[0], device=ranking.device)
        tokens = self._choose(self._constraints.apply(ranking, self._prefixes))
        self._recorded.append(evidence[rows, :, tokens].cpu())
        self._prefixes = torch.cat([self._prefixes, tokens.cpu()[:, None]], dim=1)
        for row, ids in enumerate(self._prefixes[:, 1:].tolist()):
            if self._found[row] is None:
                ending = ending_of(ids, self._constraints, self._is_stopped)
                if ending is not None:
                    log_probs = torch.stack([step[row] for step in self._recorded])
                    self._found[row] = Hypothesis(tuple(ids), log_probs, ending, score=0.0)
        return Move(parents=rows, tokens=tokens)

    def hypotheses(self) -> list[list[Hypothesis]]:
        """One hypothesis per problem."""
        return [[found] for found in self._found if found is not None]


def ending_of(ids: Sequence[int], constraints: Constraints, is_stopped: StopTest | None) -> Ending | None:
    """Whether and why a sequence of new tokens ends here."""
    if ids[-1] == constraints.eos_token_id:
        return Ending.END_OF_SEQUENCE
    if is_stopped is not None and is_stopped(ids):
        return Ending.STOP
    return Ending.LENGTH if len(ids) >= constraints.max_new_tokens else None
