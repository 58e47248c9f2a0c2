"""Questions with the passage each was written for, read from JSON lines. Knows no tokenizer and no model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.sentences import split_sentences
from training.generator.pool import hash_unit, read_json_lines

HELD_OUT_RATIO = 0.03


@dataclass(frozen=True, slots=True)
class Source:
    """A file of questions and the file of their passages, both .jsonl or .jsonl.gz."""

    passages: Path
    questions: Path


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage; `title` may be empty."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question; `passage` is the place of its own passage in the corpus."""

    id: str
    text: str
    answers: tuple[str, ...]
    passage: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages, and the questions to train on. `held_out` ones measure; no passage has questions of both."""

    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    held_out: tuple[Question, ...] = ()


def shared_sources(data: Path) -> list[Source]:
    """What the shared data folder has to train a retriever on."""
    squad, shifts = data / "squad-open", data / "squadshifts"
    return [
        Source(squad / "passages.jsonl.gz", squad / "questions_train.jsonl.gz"),
        *(
            Source(shifts / f"{name}_passages.jsonl.gz", shifts / f"{name}_questions.jsonl.gz")
            for name in ("new_wiki", "amazon_reviews", "reddit")
        ),
    ]


def read_corpus(sources: Sequence[Source], *, held_out_ratio: float = HELD_OUT_RATIO) -> Corpus:
    """Reads answerable questions and the passages that they name; other passages of a file are left out.

    A passage is held out by a hash of its id, so that the split depends neither on order nor on a seed.
    """
    passages: list[Passage] = []
    questions: list[Question] = []
    held_out: list[Question] = []
    for source in sources:
        rows = [row for row in read_json_lines(source.questions) if any(answer.strip() for answer in row["answers"])]
        named = {_passage_id(row) for row in rows}
        first = len(passages)
        passages += (read_passage(row) for row in read_json_lines(source.passages) if row["id"] in named)
        place_of = {passage.id: first + place for place, passage in enumerate(passages[first:])}
        for row in rows:
            place = place_of[_passage_id(row)]
            is_held_out = hash_unit(passages[place].id) < held_out_ratio
            (held_out if is_held_out else questions).append(read_question(row, place))
    return Corpus(tuple(passages), tuple(questions), tuple(held_out))


def with_sentences(corpus: Corpus) -> Corpus:
    """The corpus with sentences as passages of their own, at the end: those that answer, asked for by the questions.

    For passages that are also found by their best sentence. Of the sentences that hold an answer, the one that shares
    most words with the question counts; held-out questions and their passages stay as they are.
    """
    passages, questions = list(corpus.passages), list(corpus.questions)
    place_of: dict[tuple[int, str], int] = {}
    for question in corpus.questions:
        whole = corpus.passages[question.passage]
        asked = set(question.text.lower().split())
        holding = [
            sentence
            for sentence in split_sentences(whole.text, "en")
            if any(answer in sentence for answer in question.answers)
        ]
        if holding:
            sentence = max(holding, key=lambda each: len(asked & set(each.lower().split())))
            place = place_of.setdefault((question.passage, sentence), len(passages))
            if place == len(passages):
                passages.append(Passage(f"{whole.id}#{place}", whole.title, sentence))
            questions.append(replace(question, passage=place))
    return Corpus(tuple(passages), tuple(questions), corpus.held_out)


def read_pool(source: Source) -> Corpus:
    """Reads every passage of the file and every answerable question, all to be measured on."""
    passages = tuple(read_passage(row) for row in read_json_lines(source.passages))
    place_of = {passage.id: place for place, passage in enumerate(passages)}
    rows = (row for row in read_json_lines(source.questions) if any(answer.strip() for answer in row["answers"]))
    return Corpus(passages, (), tuple(read_question(row, place_of[_passage_id(row)]) for row in rows))


def read_passage(row: dict[str, Any]) -> Passage:
    """The passage of a row."""
    return Passage(row["id"], row.get("title", ""), row["text"])


def read_question(row: dict[str, Any], place: int) -> Question:
    """The question of a row, whose passage lies at `place`."""
    answers = tuple(answer for answer in row["answers"] if answer.strip())
    return Question(row["id"], row["question"].strip(), answers, place)


def _passage_id(row: dict[str, Any]) -> str:
    return str(row["passage_id"] if "passage_id" in row else row["passage_ids"][0])
