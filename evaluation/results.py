"""What happened to each question of a run: a file of JSON lines that an interrupted run continues.

The first line holds the run's settings; a file of other settings is refused, so that no report mixes two systems.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO


@dataclass(frozen=True, slots=True)
class Result:
    """One question's outcome.

    Attributes:
        id: The question's.
        kind: The question's.
        is_answerable: Whether it has a known answer.
        text: What was answered; empty when not.
        is_answered: False for NO_PASSAGES, ABSTAINED and errors.
        finish_reason: As the gateway said.
        confidence: In [0, 1].
        exact_match: 0 or 1 against the best gold answer.
        f1: In [0, 1] against the best gold answer.
        gold_flags: By rank of the long retrieval, whether the passage is gold; None without gold.
        num_gold: How many gold passages there are.
        answer_flags: By rank, whether the passage contains an answer string; None for unanswerable questions.
        latency_seconds: Of the answer, as the client saw it.
        stage_seconds: The gateway's stages.
        provenance: Digests and names of what answered.
        error: Why there is no answer, where the call failed.
    """

    id: str
    kind: str
    is_answerable: bool
    text: str = ""
    is_answered: bool = False
    finish_reason: str = ""
    confidence: float = 0.0
    exact_match: float = 0.0
    f1: float = 0.0
    gold_flags: list[bool] | None = None
    num_gold: int = 0
    answer_flags: list[bool] | None = None
    latency_seconds: float = 0.0
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class ResultFile:
    """The file, open for appending; use it in a `with` statement. `results` holds what was there and what is added."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Reads what is there.

        Raises:
            ValueError: The file was made with other settings, or is no such file.
            OSError: It cannot be read or written.
        """
        self._path = path
        self.results: dict[str, Result] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        complete = self._read(json.loads(json.dumps(settings))) if path.exists() else 0
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._file.truncate(complete)
        if complete == 0:
            self._write({"settings": dict(settings)})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, result: Result) -> None:
        """Appends a result."""
        self._write(asdict(result))
        self.results[result.id] = result

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def _read(self, settings: Mapping[str, Any]) -> int:
        """Reads the complete lines; returns their length in bytes. A line cut short by an interruption is dropped."""
        content = self._path.read_bytes()
        complete = content.rfind(b"\n") + 1
        lines = content[:complete].splitlines()
        try:
            records = [json.loads(line) for line in lines]
            given = records[0]["settings"] if records else settings
            self.results = {record["id"]: Result(**record) for record in records[1:]}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self._path} is no file of results: {error!r}") from error
        if given != settings:
            changed = sorted(key for key in {*given, *settings} if given.get(key) != settings.get(key))
            raise ValueError(
                f"{self._path} holds results of a run with other settings ({', '.join(changed)}): "
                "choose another file, or delete it"
            )
        return complete


def read_results(path: Path) -> tuple[Mapping[str, Any], list[Result]]:
    """The settings and results of a finished or interrupted run."""
    with path.open(encoding="utf-8") as file:
        settings, *records = [json.loads(line) for line in file]
    known = {each.name for each in fields(Result)}
    return settings["settings"], [
        Result(**{key: value for key, value in record.items() if key in known}) for record in records
    ]
