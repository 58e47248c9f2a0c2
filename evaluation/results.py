"""What happened to each question of a run: a file of JSON lines that an interrupted run continues.

The first line holds the run's settings; a file of other settings is refused, so that no report mixes two systems.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pydantic import TypeAdapter

from evaluation.datasets import Question, Target
from rag_client import Turn


@dataclass(frozen=True, slots=True)
class Cited:
    """A passage that an answer was made from, with the beginning of its text."""

    id: str
    title: str
    source: str
    text: str
    prior: float
    posterior: float
    is_gold: bool
    has_answer: bool


@dataclass(frozen=True, slots=True)
class Result:
    """One question and its outcome; what that is worth, `evaluation.scores` tells.

    Attributes:
        id: The question's.
        question: Its text.
        target: What makes an answer right.
        golds: The known answers, the expression or the label.
        tags: The question's.
        history: The turns before it.
        text: What was answered; empty when not.
        is_answered: False for NO_PASSAGES, ABSTAINED and errors.
        finish_reason: As the gateway said.
        confidence: In [0, 1].
        from_cache: Whether the gateway had decoded it before: its latency tells nothing.
        cited: The passages with the highest posteriors, highest first.
        gold_flags: By rank of the long retrieval, whether the passage is gold; None without gold.
        num_gold: How many gold passages there are.
        answer_flags: By rank, whether the passage contains an answer; None without answer strings or expression.
        latency_seconds: Of the answer, as the client saw it.
        stage_seconds: The gateway's stages.
        provenance: Digests and names of what answered.
        error: Why there is no answer, where the call failed.
    """

    id: str
    question: str
    target: Target
    golds: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Turn, ...] = ()
    text: str = ""
    is_answered: bool = False
    finish_reason: str = ""
    confidence: float = 0.0
    from_cache: bool = False
    cited: tuple[Cited, ...] = ()
    gold_flags: list[bool] | None = None
    num_gold: int = 0
    answer_flags: list[bool] | None = None
    latency_seconds: float = 0.0
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def is_answerable(self) -> bool:
        """Whether an answer is known."""
        return self.target is not Target.NONE

    def is_of(self, question: Question) -> bool:
        """Whether this is the outcome of that very question."""
        asked = (self.id, self.question, self.history, self.target, self.golds)
        return asked == (question.id, question.text, question.history, question.target, question.golds)


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one system on some questions, as far as it got."""

    settings: Mapping[str, Any]
    results: Sequence[Result]


_RESULT = TypeAdapter(Result)
_START = b'{"settings": {'


def read_run(path: Path) -> Run:
    """The settings and results of a finished or interrupted run.

    Raises:
        ValueError: It is no file of results.
        OSError: It cannot be read.
    """
    run, _ = _parse(path)
    if run is None:
        raise ValueError(f"{path} holds no results")
    return run


class ResultFile:
    """The file, open for appending; use it in a `with` statement. `results` holds what was there and what is added."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Reads what is there.

        Raises:
            ValueError: The file was made with other settings, or is no such file.
            OSError: It cannot be read or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        before, num_bytes = _parse(path) if path.exists() else (None, 0)
        if before is not None:
            _refuse_other(path, before.settings, json.loads(json.dumps(settings)))
        self.results = {result.id: result for result in before.results} if before is not None else {}
        self._file: BinaryIO = path.open("ab")
        self._file.truncate(num_bytes)
        if before is None:
            self._write(json.dumps({"settings": dict(settings)}, ensure_ascii=False).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, result: Result) -> None:
        """Appends a result."""
        self._write(_RESULT.dump_json(result))
        self.results[result.id] = result

    def _write(self, record: bytes) -> None:
        self._file.write(record + b"\n")
        self._file.flush()


def _parse(path: Path) -> tuple[Run | None, int]:
    """The run, None where not even its settings are complete, and the length of the complete lines in bytes.

    A line cut short by an interruption does not count.
    """
    content = path.read_bytes()
    num_bytes = content.rfind(b"\n") + 1
    if not num_bytes and content[: len(_START)] == _START[: len(content)]:
        return None, 0
    try:
        first, *others = content[:num_bytes].splitlines()
        return Run(json.loads(first)["settings"], [_RESULT.validate_json(line) for line in others]), num_bytes
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of results") from error


def _refuse_other(path: Path, given: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if given != settings:
        changed = sorted(key for key in {*given, *settings} if given.get(key) != settings.get(key))
        raise ValueError(
            f"{path} holds results of a run with other settings ({', '.join(changed)}): "
            "choose another file, or delete it"
        )
