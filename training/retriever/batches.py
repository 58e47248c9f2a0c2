"""Which questions and passages a step sees. It depends on (seed, step) alone, so that a run can go on where it stood.

Questions on one passage come together, and so do passages that are mined negatives of each other's questions: a
passage is encoded once for all its questions, and the others of the batch are hard negatives for free.

Source: Hofstätter et al. 2021 (topic-aware batches).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from training.retriever.data import Question

_CLUSTER_SIZE = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """B questions and the P passages they choose from.

    Attributes:
        questions: (B,) places of questions.
        passages: (P,) places of passages, each once.
        positives: (B,) where in `passages` each question's own passage stands.
    """

    questions: Sequence[int]
    passages: Sequence[int]
    positives: Sequence[int]


class BatchStream:
    """The batches of a run by number."""

    def __init__(
        self,
        questions: Sequence[Question],
        mined: Sequence[Sequence[int]],
        *,
        batch_size: int,
        num_negatives: int,
        seed: int,
    ) -> None:
        """Prepares.

        Args:
            questions: To train on; as many as fill a batch.
            mined: Places of each question's mined negatives, best first.
            batch_size: Questions of a batch.
            num_negatives: Mined negatives that a batch adds for each of its passages.
            seed: Of the order and of the choice of negatives.

        Raises:
            ValueError: When the questions do not fill a batch.
        """
        if len(questions) < batch_size:
            raise ValueError(f"{len(questions)} questions do not fill a batch of {batch_size}")
        self._questions, self._mined, self._batch_size = questions, mined, batch_size
        self._num_negatives, self._seed = num_negatives, seed
        self._of_passage: dict[int, list[int]] = defaultdict(list)
        for place, question in enumerate(questions):
            self._of_passage[question.passage].append(place)
        self._near = {
            passage: [near for near, _ in Counter(n for place in places for n in mined[place]).most_common()]
            for passage, places in self._of_passage.items()
        }
        self._epoch, self._order = -1, list[int]()

    def batch(self, number: int) -> Batch:
        """Batch `number` of the run: every question once an epoch, but for the rest that fills no batch."""
        epoch, place = divmod(number, len(self._questions) // self._batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._ordered(random.Random(f"{self._seed}:epoch:{epoch}"))
        chosen = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        own = [self._questions[each].passage for each in chosen]
        rng = random.Random(f"{self._seed}:batch:{number}")
        asking = dict(zip(own, chosen, strict=True))  # One question of each passage.
        added = [near for each in asking.values() for near in self._some(self._mined[each], rng)]
        passages = list(dict.fromkeys([*own, *added]))
        column = {passage: index for index, passage in enumerate(passages)}
        return Batch(chosen, passages, [column[passage] for passage in own])

    def _some(self, mined: Sequence[int], rng: random.Random) -> Sequence[int]:
        return rng.sample(mined, min(self._num_negatives, len(mined)))

    def _ordered(self, rng: random.Random) -> list[int]:
        """All questions, shuffled by passage, each passage followed by those near it that are still to come."""
        passages = list(self._of_passage)
        rng.shuffle(passages)
        seen: set[int] = set()
        order: list[int] = []
        for passage in passages:
            if passage not in seen:
                near = [each for each in self._near[passage] if each in self._of_passage and each not in seen]
                for each in (passage, *near[: _CLUSTER_SIZE - 1]):
                    seen.add(each)
                    order += rng.sample(self._of_passage[each], len(self._of_passage[each]))
        return order
