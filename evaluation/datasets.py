"""Questions with known answers, read from JSON lines (.jsonl or .jsonl.gz); docs/evaluation.md lists the fields.

A question is known by strings (`answers`), by a regular expression (`answer_regex`), by the class that its answer must
name (`label`), or it is unanswerable (none of them). Every other short field, such as `kind`, is a tag that reports can
be sliced by.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import regex
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rag_client import Passage, Turn

MAX_TAG_CHARS = 80  # A longer field is a text, not a tag.


class Target(StrEnum):
    """What makes an answer right."""

    STRINGS = "strings"
    REGEX = "regex"
    LABEL = "label"
    NONE = "none"  #: Unanswerable: no answer is right.


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
    """A question with its known answers; `history` has the turns before it, the oldest first."""

    id: str
    text: str
    answers: tuple[str, ...] = ()
    answer_regex: str = ""
    label: str = ""
    gold: Gold | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Turn, ...] = ()

    @property
    def target(self) -> Target:
        """What makes an answer right."""
        if self.answer_regex:
            return Target.REGEX
        if self.label:
            return Target.LABEL
        return Target.STRINGS if self.answers else Target.NONE

    @property
    def golds(self) -> tuple[str, ...]:
        """What an answer is held against: the answers, the expression or the label."""
        return self.answers or tuple(filter(None, (self.answer_regex, self.label)))

    @property
    def is_answerable(self) -> bool:
        """Whether an answer is known."""
        return self.target is not Target.NONE


class Tagged(Protocol):
    """A question, or what became of it."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Name → value."""


def read_questions(path: Path) -> list[Question]:
    """The questions of a file, in its order.

    Raises:
        ValueError: A line is no question, or an id comes twice; names file, line and field.
        OSError: The file cannot be read.
    """
    questions: dict[str, Question] = {}
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip():
            continue
        try:
            question = _Row.model_validate_json(line).to_question()
        except ValidationError as error:
            raise ValueError(f"{path}, line {number}: not a question: {_first(error)}") from error
        if question.id in questions:
            raise ValueError(f"{path}, line {number}: id {question.id!r} comes twice")
        questions[question.id] = question
    return list(questions.values())


def check_tags(tagged: Iterable[Tagged], wanted: Sequence[str]) -> None:
    """Refuses tags that nothing has.

    Raises:
        ValueError: Names the first of them, and those that there are.
    """
    known = sorted({tag for each in tagged for tag in each.tags})
    for tag in wanted:
        if tag not in known:
            raise ValueError(f"no question has a field {tag!r} to slice by; there are: {', '.join(known) or 'none'}")


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file, gzipped where its name ends in .gz."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    else:
        with path.open(encoding="utf-8") as file:
            yield from file


_Given = Annotated[str, Field(min_length=1)]
_Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
_Texts = Annotated[tuple[_Given, ...], BeforeValidator(lambda value: () if value is None else value)]
_Turns = Annotated[tuple[Turn, ...], BeforeValidator(lambda value: () if value is None else value)]


class _Row(BaseModel):
    """A line as it is written; null is the same as a field left out."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    id: _Given
    question: _Given
    history: _Turns = ()
    answers: _Texts = ()
    answer_regex: _Text = ""
    label: _Text = ""
    passage_id: _Text = ""
    passage_ids: _Texts = ()
    source: _Text = ""
    section: _Text = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("answers", "answer_regex", "label") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: not together with {given[0]}")
        try:
            regex.compile(self.answer_regex)
        except regex.error as error:
            raise ValueError(f"answer_regex: {error}") from error
        for name in self.model_extra or {}:
            for meant in get_close_matches(name, type(self).model_fields, n=1, cutoff=0.85):
                raise ValueError(f"{name}: did you mean {meant}?")
        return self

    def to_question(self) -> Question:
        gold = Gold(frozenset(self.passage_ids or filter(None, [self.passage_id])))
        if not gold.passage_ids:
            gold = Gold(source=self.source, section=self.section)
        return Question(
            id=self.id,
            text=self.question,
            history=self.history,
            answers=self.answers,
            answer_regex=self.answer_regex,
            label=self.label,
            gold=gold if gold.passage_ids or gold.source else None,
            tags=_tags({"source": self.source, "label": self.label, **(self.model_extra or {})}),
        )


def _tags(fields: Mapping[str, Any]) -> dict[str, str]:
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in fields.items()
        if isinstance(value, str | int | float)
    }
    return {name: text for name, text in texts.items() if 0 < len(text) <= MAX_TAG_CHARS}


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, as "field: why"."""
    first = error.errors()[0]
    place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _ends(text: str, ending: str, separator: str) -> bool:
    return text == ending or text.endswith(separator + ending)
