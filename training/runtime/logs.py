"""A run's numbers on disk: one JSON line a record, and TensorBoard events where tensorboard is installed."""

import importlib.util
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

_METRICS = "metrics.jsonl"


class RunLog:
    """Appends records; a resumed run first drops those after ``step``, which it will make again."""

    def __init__(self, folder: Path, *, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _METRICS
        kept = [line for line in path.read_text("utf-8").splitlines() if _is_kept(line, step)] if path.exists() else []
        self._file = path.open("w", encoding="utf-8")
        self._file.writelines(line + "\n" for line in kept)
        self._events: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            logging.info("no TensorBoard events: pip install 'rag-serving[train]' adds them")
            return
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(folder / "logs"), purge_step=step + 1)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def write(self, step: int, values: Mapping[str, float], *, group: str) -> None:
        """Record ``values`` of ``step``; ``group`` ("train", "dev") prefixes their names."""
        named = {f"{group}/{name}": value for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **named}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in named.items():
                self._events.add_scalar(name, value, step)


def read_log(folder: Path) -> list[dict[str, float]]:
    """The records of a run, oldest first."""
    return [json.loads(line) for line in (folder / _METRICS).read_text("utf-8").splitlines()]


def _is_kept(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except json.JSONDecodeError:  # cut off when the run was killed
        return False
