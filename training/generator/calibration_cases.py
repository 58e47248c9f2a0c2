"""What the confidence model is fitted on: questions kept out of training, with and without their answer at hand.

The passages are those of the training sets: as one knowledge base of whole articles, where many passages are near a
question, and dealt out to small ones, where few are. The questions are those of the passages that training held out,
asked with the gold passage there, with it hidden, and with its whole article hidden. WebQuestions, which come without
passages, are what people ask of a knowledge base that mostly does not know. Knows files and splits; who retrieves and
answers is elsewhere.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.generator.pool import HELD_OUT_RATIO, hash_unit, read_json_lines

WHOLE = "articles"
NUM_PARTS = 12
_SETS = (
    ("squad-open/passages.jsonl.gz", "squad-open/questions_train.jsonl.gz"),
    ("squadshifts/new_wiki_passages.jsonl.gz", "squadshifts/new_wiki_questions.jsonl.gz"),
)
_IMPOSSIBLE = "squad-open/questions_train_unanswerable.jsonl.gz"
_WEB, _NUM_WEB = "webquestions/trainmodel.jsonl.gz", 300


@dataclass(frozen=True, slots=True)
class KnownPassage:
    """A passage of a knowledge base."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """A question to a knowledge base that lacks the passages `hidden`.

    `kind` is "gold", "no-passage", "no-article", "impossible" (SQuAD 2.0's, whose passage is there) or "web".
    """

    id: str
    kind: str
    collection: str
    question: str
    answers: tuple[str, ...]
    hidden: tuple[str, ...] = ()


def read_cases(data: Path) -> tuple[dict[str, list[KnownPassage]], list[Case]]:
    """The knowledge bases by name, and the cases in a random order that is always the same."""
    passages = [each for file, _ in _SETS for each in _passages(data / file)]
    collections = {WHOLE: passages, **{_part(i): [] for i in range(NUM_PARTS)}}
    for passage in passages:
        collections[_part_of(passage.id)].append(passage)
    articles: dict[str, list[str]] = {}
    for passage in passages:
        articles.setdefault(passage.title, []).append(passage.id)
    article_of = {passage.id: passage.title for passage in passages}
    cases = [
        case
        for _, file in _SETS
        for row in _held_out(data / file)
        for case in _variants(row, tuple(articles[article_of[row["passage_id"]]]))
    ]
    cases += [_case(row, "impossible", WHOLE) for row in _held_out(data / _IMPOSSIBLE)]
    web = random.Random(0).sample(list(read_json_lines(data / _WEB)), _NUM_WEB)
    cases += [_case(row, "web", WHOLE if i % 2 else _part(i // 2 % NUM_PARTS)) for i, row in enumerate(web)]
    random.Random(0).shuffle(cases)
    return collections, cases


def _variants(row: dict[str, Any], article: tuple[str, ...]) -> Iterator[Case]:
    passage = row["passage_id"]
    yield _case(row, "gold", WHOLE)
    yield _case(row, "gold", _part_of(passage))
    place = hash_unit(row["id"])
    if place < 1 / 2:
        yield _case(row, "no-passage", _part_of(passage), (passage,))
    elif place < 3 / 4:
        yield _case(row, "no-passage", WHOLE, (passage,))
    else:
        yield _case(row, "no-article", WHOLE, article)


def _case(row: dict[str, Any], kind: str, collection: str, hidden: tuple[str, ...] = ()) -> Case:
    return Case(f"{row['id']}/{kind}/{collection}", kind, collection, row["question"], tuple(row["answers"]), hidden)


def _passages(path: Path) -> Iterator[KnownPassage]:
    for row in read_json_lines(path):
        if not row["id"].startswith("dev-"):
            yield KnownPassage(row["id"], row["title"], row["text"])


def _held_out(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_json_lines(path) if hash_unit(row["passage_id"]) < HELD_OUT_RATIO]


def _part(number: int) -> str:
    return f"part-{number}"


def _part_of(passage: str) -> str:
    return _part(int(hash_unit(f"part of {passage}") * NUM_PARTS))
