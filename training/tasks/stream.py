"""The run's examples by number and its batches by step, drawn from every task in fixed shares.

Example number ``n`` depends on (seed, n) alone, so a run that stops goes on with the very same data.
"""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from generator_service.prompt import PromptFormat
from training.generator.examples import Batch, Example, SpecialIds, collate
from training.generator.pool import hash_unit
from training.retriever.data import Passage
from training.tasks.cases import ANSWERING, LABELS, Case
from training.tasks.claims import ClaimMaker, abstract_claim
from training.tasks.dialogues import dialogue
from training.tasks.sources import (
    TRAINING_SETS,
    Known,
    by_passage,
    cropped,
    find_nearby,
    passages_of,
    read_abstracts,
    read_known,
)
from training.tasks.summaries import answering_sentence, conclusion, gap_sentence

PROMPT = PromptFormat(max_input_tokens=384)
MAX_TARGET_TOKENS = 95
_NO_ANSWER_RATIO = 0.3
_HELD_OUT_RATIO = 0.03
_NUM_BATCHES_SORTED = 40

Maker = Callable[[random.Random], Case | None]


class Mixture:
    """Cases of every task: ``(share, maker)`` pairs, a maker drawing one of its task or, now and then, none."""

    def __init__(self, makers: Sequence[tuple[float, Maker]]) -> None:
        self._shares = [share for share, _ in makers]
        self._makers = [maker for _, maker in makers]

    def case(self, number: int, seed: int) -> Case:
        """Case ``number`` of the run."""
        rng = random.Random(f"{seed}:{number}")
        (maker,) = rng.choices(self._makers, self._shares)
        while True:
            case = maker(rng)
            if case is not None:
                return case


def shared_mixture(data: Path, tokenizer: PreTrainedTokenizerBase, *, held_out: bool = False) -> Mixture:
    """What the shared data gives to train on, or the few passages of it that are kept apart from training.

    Claims come from encyclopedic questions, which mean something without their passage.
    """

    def is_ours(key: str) -> bool:
        return (hash_unit(f"tasks:{key}") < _HELD_OUT_RATIO) is held_out

    sets = [[each for each in read_known(data, *names) if is_ours(each.passage.id)] for names in TRAINING_SETS]
    encyclopedic = [cropped(each) for known in sets[:2] for each in known]
    nearby = find_nearby(encyclopedic, passages_of(encyclopedic), tokenizer)
    claims = ClaimMaker(encyclopedic, nearby)
    turns = [group for known in sets for group in by_passage(known) if len(group) > 1]
    abstracts = [each for each in read_abstracts(data)[0] if is_ours(each.id)]
    passages = passages_of([*encyclopedic, *map(cropped, sets[4])])
    return Mixture(
        (
            *((0.1, partial(_claim, claims, encyclopedic, label)) for label in LABELS),
            (0.10, lambda rng: abstract_claim(rng.choice(abstracts))),
            (0.22, lambda rng: _dialogue(rng.choice(turns), rng)),
            (0.08, lambda rng: conclusion(rng.choice(abstracts))),
            (0.12, lambda rng: answering_sentence(rng.choice(encyclopedic))),
            (0.04, lambda rng: gap_sentence(rng.choice(passages))),
            (0.14, lambda rng: _answer(rng.choice(encyclopedic), nearby, rng)),
        )
    )


def _claim(claims: ClaimMaker, known: Sequence[Known], label: str, rng: random.Random) -> Case | None:
    return claims.draw(rng.choice(known), label, rng)


def _dialogue(turns: Sequence[Known], rng: random.Random) -> Case | None:
    return dialogue(turns, rng.randrange(1, len(turns)), rng)


def _answer(known: Known, nearby: dict[str, list[Passage]], rng: random.Random) -> Case:
    """Plain question answering, so that it is not forgotten: nothing is the answer where the passage has none."""
    near = nearby[known.id]
    if near and rng.random() < _NO_ANSWER_RATIO:
        passage = rng.choice(near)
        return Case(ANSWERING, known.question, "", passage.title, passage.text)
    return Case(ANSWERING, known.question, known.answer, known.passage.title, known.passage.text)


class Batches:
    """Tensors of the mixture's cases, by number; neighbours in length share a batch."""

    def __init__(
        self, mixture: Mixture, tokenizer: PreTrainedTokenizerBase, *, batch_size: int, seed: int, ids: SpecialIds
    ) -> None:
        self._mixture, self._tokenizer, self._size, self._seed, self._ids = mixture, tokenizer, batch_size, seed, ids
        self._block, self._groups = -1, list[list[Example]]()

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of the run; within blocks of 40 the examples are sorted by length, the batches shuffled."""
        block, place = divmod(number, _NUM_BATCHES_SORTED)
        if block != self._block:
            count = self._size * _NUM_BATCHES_SORTED
            cases = [self._mixture.case(block * count + offset, self._seed) for offset in range(count)]
            examples = sorted(encode(cases, self._tokenizer), key=lambda each: (len(each.input_ids), each.target_ids))
            self._groups = [examples[start : start + self._size] for start in range(0, count, self._size)]
            random.Random(f"{self._seed}:block:{block}").shuffle(self._groups)
            self._block = block
        return collate(self._groups[place], self._ids)


def encode(cases: Sequence[Case], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Token ids of cases: the input as the generator service builds it, the target with its end."""
    if not cases:
        return []
    prompts = tokenizer([case.prompt for case in cases], add_special_tokens=False)["input_ids"]
    segments = [PROMPT.passage_segment(case.title, case.text) for case in cases]
    passages = tokenizer(segments, add_special_tokens=False)["input_ids"]
    targets = tokenizer([case.target for case in cases], add_special_tokens=False)["input_ids"]
    end = int(tokenizer.sep_token_id)
    return [
        Example(tuple(PROMPT.join(tokenizer, prompt, passage)), (*target[:MAX_TARGET_TOKENS], end), None)
        for prompt, passage, target in zip(prompts, passages, targets, strict=True)
    ]
