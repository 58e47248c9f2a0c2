"""Questions with known answers, read from JSON lines (.jsonl or .jsonl.gz).

A line holds `id`, `question`, `answers` (none: unanswerable), and where the answer stands: `passage_id` or
`passage_ids`, or `source` and `section`. `answer_regex` replaces `answers` in CuratedTrec's manner; `kind` groups the
report.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_client import Passage


@dataclass(frozen=True, slots=True)
class Gold:
    """Where a question's answer stands: by passage id, or by the end of source and title.

    Attributes:
        passage_ids: Any of them; empty to go by source.
        source: A path whose last components the passage's source must end with.
        section: A heading that the passage's title must be or end with, as "Document: Section"; empty for any.
    """

    passage_ids: frozenset[str] = frozenset()
    source: str = ""
    section: str = ""

    @property
    def num_passages(self) -> int:
        """How many passages are gold; one where it goes by source, because any piece of the section will do."""
        return len(self.passage_ids) or 1

    def flags(self, ranking: Sequence[Passage]) -> list[bool]:
        """Which ranks hold a gold passage. Where it goes by source, the first piece of the section counts alone."""
        flags = [self._matches(passage) for passage in ranking]
        if not self.passage_ids and True in flags:
            flags = [rank == flags.index(True) for rank in range(len(flags))]
        return flags

    def _matches(self, passage: Passage) -> bool:
        if self.passage_ids:
            return passage.id in self.passage_ids
        return _ends(passage.source, self.source, "/") and (
            not self.section or _ends(passage.title, self.section, ": ")
        )


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its known answers."""

    id: str
    text: str
    answers: tuple[str, ...] = ()
    answer_regex: str = ""
    gold: Gold | None = None
    kind: str = ""

    @property
    def is_answerable(self) -> bool:
        """Whether an answer is known."""
        return bool(self.answers or self.answer_regex)


def read_questions(path: Path) -> list[Question]:
    """The questions of a file, in its order.

    Raises:
        ValueError: A line is no question, or an id comes twice; names file and line.
        OSError: The file cannot be read.
    """
    questions: dict[str, Question] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            question = _question(json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a question: {error!r}") from error
        if question.id in questions:
            raise ValueError(f"{path}, line {number}: id {question.id!r} comes twice")
        questions[question.id] = question
    return list(questions.values())


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    else:
        with path.open(encoding="utf-8") as file:
            yield from file


def _question(row: dict[str, Any]) -> Question:
    return Question(
        id=str(row["id"]),
        text=str(row["question"]),
        answers=tuple(map(str, row.get("answers") or ())),
        answer_regex=str(row.get("answer_regex") or ""),
        gold=_gold(row),
        kind=str(row.get("kind") or ""),
    )


def _gold(row: dict[str, Any]) -> Gold | None:
    passage_ids = frozenset(map(str, row.get("passage_ids") or ([row["passage_id"]] if row.get("passage_id") else ())))
    if passage_ids:
        return Gold(passage_ids)
    return Gold(source=str(row["source"]), section=str(row.get("section") or "")) if row.get("source") else None


def _ends(text: str, ending: str, separator: str) -> bool:
    return text == ending or text.endswith(separator + ending)
