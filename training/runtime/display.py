"""A run for the one who watches: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.runtime.loop import Report, Schedule

_SMOOTHING = 0.98
_SHARES = 1000


class ProgressDisplay:
    """A context: inside, ``show`` takes each step's numbers; terms are smoothed, the time left is estimated."""

    def __init__(self, schedule: Schedule, console: Console, *, line_every_steps: int = 50) -> None:
        self._console, self._line_every_steps = console, line_every_steps
        self._smoothed: dict[str, float] = {}
        text = TextColumn("{task.description}")
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("training", total=_SHARES)

    def __enter__(self) -> "ProgressDisplay":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, report: Report) -> None:
        """Take one step's numbers in."""
        now = {**report.shown, "questions/s": report.questions_per_second}
        for name, value in now.items():
            self._smoothed[name] = _SMOOTHING * self._smoothed.get(name, value) + (1 - _SMOOTHING) * value
        line = f"step {report.step} {_written(self._smoothed)}"
        self._bar.update(self._task, completed=int(_SHARES * report.fraction_done), description=line)
        if not self._console.is_terminal and report.step % self._line_every_steps == 0:
            done = f"done {report.fraction_done:.3f} norm {report.gradient_norm:.2f}"
            self._console.print(f"{_clock()} {line} {done}", soft_wrap=True)
        if report.measured:
            self._console.print(f"{_clock()} step {report.step} measured {_written(report.measured)}", soft_wrap=True)


def _written(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())


def _clock() -> str:
    return time.strftime("%H:%M:%S")
