"""Beam search for answers that contain given words: the beams are shared out by how many tokens of them are missing.

The beams are dealt out in turn, the best of each group first, so the group with the fewest missing tokens is never
lost, however few beams there are.

Source: Post & Vilar 2018, arXiv 1804.06609 (dynamic beam allocation); fairseq's LexicallyConstrainedBeamSearch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generator_service.decoding.beam import BeamSearch, Candidates
from generator_service.decoding.forced_words import ForcedWords, TokenIds

_LEAST = -1.0e8
"""Below it are the scores of beams that do not exist."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    score: float
    parent: int
    token: int
    present: frozenset[int]
    num_missing: int
    has_ended: bool


class ForcedBeamSearch(BeamSearch):
    """A beam search whose every hypothesis contains the forced words."""

    def __init__(
        self, *, forced: ForcedWords, before_stop: Callable[[TokenIds], TokenIds] | None = None, **search: Any
    ) -> None:
        """Takes the words and what `BeamSearch` takes.

        Args:
            forced: The words.
            before_stop: The tokens before the first stop string, where there are stop strings.
            **search: See `BeamSearch`.
        """
        super().__init__(**search)
        self._forced = forced
        self._before_stop = before_stop
        problems, beams = self._scores.shape
        self._present = [[frozenset[int]()] * beams for _ in range(problems)]

    def _candidates(self, ranking: Tensor) -> Candidates:
        """Per problem K columns of ended candidates, then K of those that go on; places left over score -inf."""
        totals = self._totals(ranking)
        beams = totals.shape[1]
        chosen = [self._chosen(b, totals[b]) for b in range(len(totals))]
        nothing = _Candidate(-torch.inf, 0, self._constraints.eos_token_id, frozenset(), 0, has_ended=True)
        table = [
            [*ended, *[nothing] * (beams - len(ended)), *running, *[nothing] * (beams - len(running))]
            for ended, running in chosen
        ]
        self._present = [[each.present for each in row[beams:]] for row in table]
        return Candidates(
            torch.tensor([[each.score for each in row] for row in table]),
            torch.tensor([[each.parent for each in row] for row in table]),
            torch.tensor([[each.token for each in row] for row in table]),
        )

    def _chosen(self, problem: int, totals: Tensor) -> tuple[list[_Candidate], list[_Candidate]]:
        """Of one problem's continuations (K, V) at most K that end the answer and at most K to go on with."""
        beams = totals.shape[0]
        pool = sorted(self._pool(problem, totals), key=lambda each: each.score, reverse=True)
        complete = [each for each in pool if not each.num_missing][:beams]
        groups: dict[int, int] = {}
        ranked = []
        for each in pool:
            if not each.has_ended:
                place = groups[each.num_missing] = groups.get(each.num_missing, -1) + 1
                ranked.append((place, each.num_missing, each))
        ranked.sort(key=lambda entry: entry[:2])
        return [each for each in complete if each.has_ended], [each for _, _, each in ranked[:beams]]

    def _pool(self, problem: int, totals: Tensor) -> list[_Candidate]:
        """The best continuations over all beams, two of each beam, and those that bring a missing word nearer."""
        beams, vocabulary = totals.shape
        prefixes: list[list[int]] = self._prefixes[problem, :, 1:].tolist()
        present = self._present[problem]
        incomplete = torch.tensor([len(each) < len(self._forced.words) for each in present], device=totals.device)
        totals[incomplete, self._constraints.eos_token_id] = -torch.inf
        places = set(totals.flatten().topk(min(2 * beams, totals.numel())).indices.tolist())
        for beam, best in enumerate(totals.topk(2).indices.tolist()):
            tokens = {*best, *self._forced.next_tokens(present[beam], prefixes[beam])}
            places.update(beam * vocabulary + token for token in tokens)
        ordered = sorted(places)
        scores = totals.flatten()[ordered].tolist()
        found = []
        for place, score in zip(ordered, scores, strict=True):
            beam, token = divmod(place, vocabulary)
            if score > _LEAST:
                candidate = self._candidate(score, beam, token, prefixes[beam], present[beam])
                if candidate is not None:
                    found.append(candidate)
        return found

    def _candidate(
        self, score: float, beam: int, token: int, prefix: Sequence[int], present: frozenset[int]
    ) -> _Candidate | None:
        """The continuation of a prefix by a token; None where the words no longer fit, or it ends without them."""
        constraints = self._constraints
        ids = [*prefix, token]
        present = self._forced.present_after(present, ids)
        missing = self._forced.num_missing(present, ids)
        room = constraints.max_new_tokens - (constraints.forced_eos_token_id is not None)
        if missing and len(ids) + missing > room:
            return None
        is_stopped = self._is_stopped is not None and self._is_stopped(ids)
        if is_stopped and not self._forced.are_in(self._before_stop(ids) if self._before_stop else ids):
            return None
        has_ended = is_stopped or token == constraints.eos_token_id or len(ids) >= constraints.max_new_tokens
        return _Candidate(score, beam, token, present, missing, has_ended)

    def _kept(self, running: Tensor) -> Tensor:
        """The columns that go on were chosen already."""
        beams = self._options.num_beams
        return torch.arange(beams, 2 * beams).expand(running.shape[0], -1)

    def _keep(self, problems: list[int]) -> None:
        super()._keep(problems)
        self._present = [self._present[b] for b in problems]
