"""Read training questions and passages into token ids.

A pool holds each passage once and each question with its passage and the place of its answer there. Knows file formats
and the tokenizer; cropping, negatives and batches are elsewhere.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from evaluation.answers import normalize_answer
from evaluation.datasets import lines_of
from generator_service.prompt import PromptFormat

MAX_ANSWER_TOKENS = 30
HELD_OUT_RATIO = 0.03
_NEIGHBOURHOOD_TOKENS = 15


@dataclass(frozen=True, slots=True)
class Source:
    """One question file with its passages, relative to the data folder; ``questions`` may hold unanswerable ones.

    ``negative_ratio`` is the share of draws in which a question comes with a passage that does not answer it. It is low
    where questions lean on their own passage ("What is the brand name?"), since another passage answers those, too.
    """

    passages: str
    questions: str
    negative_ratio: float
    repeat: int = 1


DEFAULT_SOURCES = (
    Source("squad-open/passages.jsonl.gz", "squad-open/questions_train.jsonl.gz", 0.35),
    Source("squad-open/passages.jsonl.gz", "squad-open/questions_train_unanswerable.jsonl.gz", 0.0, repeat=3),
    Source("squadshifts/new_wiki_passages.jsonl.gz", "squadshifts/new_wiki_questions.jsonl.gz", 0.35),
    Source("squadshifts/amazon_reviews_passages.jsonl.gz", "squadshifts/amazon_reviews_questions.jsonl.gz", 0.1),
    Source("squadshifts/reddit_passages.jsonl.gz", "squadshifts/reddit_questions.jsonl.gz", 0.1),
    Source("fairytaleqa/train_passages.jsonl.gz", "fairytaleqa/train_questions.jsonl.gz", 0.1),
)


@dataclass(frozen=True, slots=True)
class TrainingPassage:
    """A passage as token ids: ``title_ids`` is the title with its colon (empty without one), ``text_ids`` the text."""

    id: str
    title: str
    text: str
    title_ids: tuple[int, ...]
    text_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrainingQuestion:
    """A question, the index of its passage in the pool, and where ``answer_ids`` starts in the passage's ``text_ids``.

    ``answer_ids`` is empty and ``answer_start`` None when the passage does not answer the question.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    question_ids: tuple[int, ...]
    passage: int
    answer_ids: tuple[int, ...]
    answer_start: int | None
    negative_ratio: float


@dataclass(frozen=True, slots=True)
class TrainingPool:
    """Everything a run draws from; ``held_out`` questions (whole passages of them) are never trained on."""

    passages: tuple[TrainingPassage, ...]
    questions: tuple[TrainingQuestion, ...]
    held_out: tuple[TrainingQuestion, ...]


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl or .jsonl.gz file."""
    return (json.loads(line) for line in lines_of(path))


def read_pool(
    data: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt: PromptFormat,
    sources: Sequence[Source] = DEFAULT_SOURCES,
    held_out_ratio: float = HELD_OUT_RATIO,
) -> TrainingPool:
    """Read ``sources`` below ``data``.

    Questions whose answer is no token-aligned span of their passage, or is longer than 30 tokens, are left out.
    A passage is held out by a hash of its id, so the split does not depend on order or seed.
    """
    passages: list[TrainingPassage] = []
    questions: list[TrainingQuestion] = []
    held_out: list[TrainingQuestion] = []
    index_of: dict[str, dict[str, int]] = {}
    for source in sources:
        rows = list(read_json_lines(data / source.questions))
        if source.passages not in index_of:
            index_of[source.passages] = _read_passages(data / source.passages, tokenizer, prompt, passages)
        for question in _aligned(source, rows, index_of[source.passages], passages, tokenizer):
            if hash_unit(passages[question.passage].id) < held_out_ratio:
                held_out.append(question)
            else:
                questions.extend([question] * source.repeat)
    return TrainingPool(tuple(passages), tuple(questions), tuple(held_out))


def _read_passages(
    path: Path, tokenizer: PreTrainedTokenizerBase, prompt: PromptFormat, into: list[TrainingPassage]
) -> dict[str, int]:
    rows = [row for row in read_json_lines(path) if not row["id"].startswith("dev-")]
    titles = [prompt.passage_segment(row["title"], "").strip() if row["title"] else "" for row in rows]
    title_ids = tokenizer(titles, add_special_tokens=False)["input_ids"]
    text_ids = tokenizer([row["text"] for row in rows], add_special_tokens=False)["input_ids"]
    index_of: dict[str, int] = {}
    for row, title, text in zip(rows, title_ids, text_ids, strict=True):
        index_of[row["id"]] = len(into)
        into.append(TrainingPassage(row["id"], row["title"], row["text"], tuple(title), tuple(text)))
    return index_of


def _aligned(
    source: Source,
    rows: list[dict[str, Any]],
    index_of: dict[str, int],
    passages: list[TrainingPassage],
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[TrainingQuestion]:
    question_ids = tokenizer([row["question"].strip() for row in rows], add_special_tokens=False)["input_ids"]
    for row, ids in zip(rows, question_ids, strict=True):
        passage_id = row["passage_id"] if "passage_id" in row else row["passage_ids"][0]
        passage = index_of[passage_id]
        answers = tuple(answer for answer in row["answers"] if answer.strip())
        place: tuple[tuple[int, ...], int | None] | None = ((), None)
        if answers:
            place = _locate(answers, tuple(ids), passages[passage].text_ids, tokenizer)
        if place is not None:
            text = row["question"]
            yield TrainingQuestion(row["id"], text, answers, tuple(ids), passage, *place, source.negative_ratio)


def _locate(
    answers: tuple[str, ...],
    question_ids: tuple[int, ...],
    text_ids: tuple[int, ...],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[tuple[int, ...], int] | None:
    """The preferred answer's ids and start: the most frequent one, then the shortest; None when no answer aligns."""
    normalized = [normalize_answer(answer) for answer in answers]
    ranked = sorted(range(len(answers)), key=lambda i: (-normalized.count(normalized[i]), len(answers[i])))
    for index in ranked:
        answer_ids = tuple(tokenizer.encode(answers[index].strip(), add_special_tokens=False))
        if 0 < len(answer_ids) <= MAX_ANSWER_TOKENS:
            starts = occurrences(answer_ids, text_ids)
            if starts:
                return answer_ids, max(starts, key=lambda s: _overlap(question_ids, text_ids, s, len(answer_ids)))
    return None


def occurrences(needle: tuple[int, ...], haystack: tuple[int, ...]) -> list[int]:
    """Every start at which ``needle`` occurs in ``haystack``."""
    length, first = len(needle), needle[0]
    ends = range(len(haystack) - length + 1)
    return [i for i in ends if haystack[i] == first and haystack[i : i + length] == needle]


def _overlap(question_ids: tuple[int, ...], text_ids: tuple[int, ...], start: int, length: int) -> int:
    around = text_ids[max(0, start - _NEIGHBOURHOOD_TOKENS) : start + length + _NEIGHBOURHOOD_TOKENS]
    return len(set(question_ids) & set(around))


def hash_unit(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
