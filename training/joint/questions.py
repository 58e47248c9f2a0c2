"""The questions of a run: read, split from those that measure, and drawn into batches by step."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evaluation.answers import normalize_answer
from evaluation.datasets import read_questions
from training.generator.pool import HELD_OUT_RATIO, hash_unit
from training.retriever.data import Passage


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its known answers.

    Attributes:
        target: The answer that is learnt.
        gold: Ids of its passages; empty where none is known.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    target: str
    gold: frozenset[str]

    def gold_place(self, place_of: Mapping[str, int]) -> int | None:
        """A gold passage's place in a knowledge base; None when it holds none."""
        return min((place_of[id_] for id_ in self.gold if id_ in place_of), default=None)


def read(path: Path) -> list[Question]:
    """The questions of a .jsonl or .jsonl.gz file that have answers; docs/evaluation.md lists its fields."""
    return [
        Question(
            each.id,
            each.text.strip(),
            each.answers,
            preferred(each.answers),
            each.gold.passage_ids if each.gold else frozenset(),
        )
        for each in read_questions(path)
        if any(answer.strip() for answer in each.answers)
    ]


def preferred(answers: Sequence[str]) -> str:
    """The answer that most people gave; of those the shortest."""
    normalized = [normalize_answer(answer) for answer in answers]
    ranked = sorted(range(len(answers)), key=lambda i: (-normalized.count(normalized[i]), len(answers[i])))
    return answers[next(i for i in ranked if answers[i].strip())]


def hold_out(questions: Sequence[Question], *, ratio: float = HELD_OUT_RATIO) -> tuple[list[Question], list[Question]]:
    """Questions to train on, and those held out to measure by a hash of their passage, else of their own id.

    It is the split of the generator's training, so that what measures was seen by neither.
    """
    kept: list[Question] = []
    held_out: list[Question] = []
    for question in questions:
        key = min(question.gold, default=question.id)
        (held_out if hash_unit(key) < ratio else kept).append(question)
    return kept, held_out


class QuestionStream:
    """The batches of a run by number: each question once an epoch, each epoch in an order of its own."""

    def __init__(self, questions: Sequence[Question], *, batch_size: int, seed: int, groups: bool = False) -> None:
        """Prepares.

        Args:
            questions: To train on.
            batch_size: Questions of a batch.
            seed: Of the orders.
            groups: Whether questions about one passage come together.

        Raises:
            SystemExit: There are fewer questions than a batch has.
        """
        if len(questions) < batch_size:
            raise SystemExit(f"{len(questions)} questions do not fill a batch of {batch_size}")
        self._questions, self._batch_size, self._seed = questions, batch_size, seed
        self._groups = groups
        self._epoch, self._order = -1, list[int]()

    def batch(self, number: int) -> list[Question]:
        """Batch ``number`` of the run; it depends on the seed alone."""
        epoch, place = divmod(number, len(self._questions) // self._batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self._questions)))
            random.Random(f"{self._seed}:epoch:{epoch}").shuffle(self._order)
            if self._groups:
                rank = {min(self._questions[each].gold, default=""): rank for rank, each in enumerate(self._order)}
                self._order.sort(key=lambda each: rank[min(self._questions[each].gold, default="")])
        chosen = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        return [self._questions[each] for each in chosen]


def window(tokenizer: PreTrainedTokenizerBase, passage: Passage, max_tokens: int, rng: random.Random) -> str:
    """The passage's text, or, where it has more than ``max_tokens``, a random stretch of so many.

    Every passage is cut alike, whether it answers or not, so that length and place tell nothing.
    """
    places = tokenizer(passage.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    if len(places) <= max_tokens:
        return passage.text
    first = rng.randint(0, len(places) - max_tokens)
    return passage.text[places[first][0] : places[first + max_tokens - 1][1]]
