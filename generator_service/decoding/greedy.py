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
        self._running = list(range(num_problems))
        self._recorded: list[list[Tensor]] = [[] for _ in range(num_problems)]
        self._found: list[Hypothesis | None] = [None] * num_problems
        self.newest: list[int] = []

    @property
    def is_done(self) -> bool:
        """Every problem's sequence has ended."""
        return not self._running

    @property
    def is_certain(self) -> bool:
        """One problem, and the most likely token is taken."""
        return len(self._found) == 1 and self._choose is most_likely

    @property
    def token_ids(self) -> list[int]:
        """The new tokens so far of a single problem that has not ended."""
        ids: list[int] = self._prefixes[0, 1:].tolist()
        return ids

    @property
    def num_tokens_left(self) -> int:
        """How many more tokens a sequence may get."""
        return self._constraints.max_new_tokens - (self._prefixes.shape[1] - 1)

    def preview(self, ranking: Tensor) -> Tensor:
        """The tokens (R,) that another ranking (R, V) of a single problem's next token would choose."""
        prefixes = self._prefixes.expand(ranking.shape[0], -1)
        return self._choose(self._constraints.apply(ranking, prefixes))

    def advance(self, ranking: Tensor, evidence: Tensor) -> Move:
        """See `Search.advance`; afterwards `newest` are the tokens chosen for its rows, ended ones included."""
        rows = torch.arange(ranking.shape[0], device=ranking.device)
        tokens = self._choose(self._constraints.apply(ranking, self._prefixes))
        step, tokens = evidence[rows, :, tokens].cpu(), tokens.cpu()
        self.newest = tokens.tolist()
        prefixes = torch.cat([self._prefixes, tokens[:, None]], dim=1)
        kept = []
        for row, (problem, ids) in enumerate(zip(self._running, prefixes[:, 1:].tolist(), strict=True)):
            self._recorded[problem].append(step[row])
            ending = ending_of(ids, self._constraints, self._is_stopped)
            if ending is None:
                kept.append(row)
            else:
                self._found[problem] = Hypothesis(tuple(ids), torch.stack(self._recorded[problem]), ending, score=0.0)
        self._running = [self._running[row] for row in kept]
        self._prefixes = prefixes[kept]
        return Move(parents=torch.tensor(kept, dtype=torch.int64), tokens=tokens[kept])

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
