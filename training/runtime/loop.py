"""The training loop: resumable at the exact step, measured on the way, stopped early or by a signal.

Knows nothing of what is trained, of where data comes from, or of who looks on.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch

from training.runtime.logs import RunLog
from training.runtime.optimizer import MasterWeights
from training.runtime.states import Progress, has_state, load_state, replace_folder, save_state


@dataclass(frozen=True, slots=True)
class Terms:
    """One forward pass: ``total`` (scalar, with a gradient) is minimised, ``shown`` is what people see."""

    total: torch.Tensor
    shown: Mapping[str, float]


class Task(Protocol):
    """What is trained."""

    @property
    def num_questions_per_step(self) -> int:
        """Questions (or examples) an optimizer step takes in, all its parts together."""
        ...

    def terms(self, step: int, part: int) -> Terms:
        """The loss of micro-batch ``part`` of ``step``: it depends on the seed, on these and on the weights alone."""
        ...

    def save(self, folder: Path) -> None:
        """Write plain checkpoints below ``folder``; the module holds float32 weights meanwhile."""
        ...

    def measure(self) -> Mapping[str, float]:
        """Metrics on held-out data; the module holds float32 weights in eval mode meanwhile. {}: there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how to train.

    The learning rate decays to zero over ``max_steps``, or over ``max_minutes`` of training where that comes first;
    only a run that the steps end is the same bit for bit when repeated.

    Attributes:
        accumulate: micro-batches per optimizer step.
        measure_every_steps: 0: only at the end.
        watch: the metric, higher is better, whose best checkpoint is kept; "": none.
        patience: measurements without a better one that end the run; 0: it is never ended early.
    """

    max_steps: int
    accumulate: int = 1
    max_minutes: float | None = None
    warmup_ratio: float = 0.03
    save_every_seconds: float = 300.0
    measure_every_steps: int = 0
    watch: str = ""
    patience: int = 0
    seed: int = 0
    dtype: torch.dtype = torch.bfloat16

    def fraction_done(self, progress: Progress) -> float:
        """Share of the run behind ``progress``, in [0, 1]."""
        by_time = progress.elapsed_seconds / (60 * self.max_minutes) if self.max_minutes else 0.0
        return min(1.0, max(progress.step / self.max_steps, by_time))

    def is_over(self, progress: Progress) -> bool:
        """Whether the run has come to its end."""
        return self.fraction_done(progress) >= 1 or 0 < self.patience <= progress.num_stale


@dataclass(frozen=True, slots=True)
class Report:
    """One step's numbers for whoever displays them; losses in nats."""

    step: int
    fraction_done: float
    shown: Mapping[str, float]
    gradient_norm: float
    questions_per_second: float
    measured: Mapping[str, float] = field(default_factory=dict)


def train(
    task: Task,
    weights: MasterWeights,
    schedule: Schedule,
    folder: Path,
    *,
    resume: bool,
    report: Callable[[Report], None],
) -> Progress:
    """Train until the schedule ends, or until SIGINT or SIGTERM, which save the state and return.

    Writes into ``folder``: ``state.pt`` and ``checkpoint`` now and then, ``best`` when the watched metric improves,
    ``metrics.jsonl`` and TensorBoard events in ``logs``.

    With ``resume`` it goes on where the state in ``folder`` stands, or starts where there is none.

    Raises:
        FileExistsError: ``folder`` holds the state of a run, and ``resume`` is false.
        FloatingPointError: a gradient is not finite; the last saved state is whole.
    """
    if has_state(folder) and not resume:
        raise FileExistsError(f"{folder} holds the state of a run: resume it, or choose another folder")
    progress = load_state(folder, weights) if has_state(folder) else Progress()

    def save() -> None:
        save_state(folder, weights, progress)
        _save_checkpoint(task, weights, folder / "checkpoint")

    weights.module.train()
    saved_at = time.monotonic()
    with _stop_signals() as stop_asked, RunLog(folder, step=progress.step) as log:
        while not schedule.is_over(progress) and not stop_asked():
            progress, numbers = _step(task, weights, schedule, progress)
            log.write(progress.step, {**numbers.shown, "gradient_norm": numbers.gradient_norm}, group="train")
            if _is_measured(schedule, progress):
                progress, measured = _measure(task, weights, schedule, progress, folder)
                log.write(progress.step, measured, group="dev")
                numbers = replace(numbers, measured=measured)
            report(numbers)
            if time.monotonic() - saved_at > schedule.save_every_seconds:
                save()
                saved_at = time.monotonic()
        save()
    return progress


def _step(task: Task, weights: MasterWeights, schedule: Schedule, progress: Progress) -> tuple[Progress, Report]:
    started = time.monotonic()
    shown: dict[str, float] = {}
    for part in range(schedule.accumulate):
        torch.manual_seed((schedule.seed * 1_000_003 + progress.step) * schedule.accumulate + part)
        terms = task.terms(progress.step, part)
        (terms.total / schedule.accumulate).backward()  # type: ignore[no-untyped-call]
        for name, value in terms.shown.items():
            shown[name] = shown.get(name, 0.0) + value / schedule.accumulate
    norm = weights.step(schedule.fraction_done(progress))
    if not math.isfinite(norm):
        raise FloatingPointError(f"step {progress.step}: the gradient's norm is {norm}")
    seconds = time.monotonic() - started
    after = replace(progress, step=progress.step + 1, elapsed_seconds=progress.elapsed_seconds + seconds)
    rate = task.num_questions_per_step / seconds
    return after, Report(after.step, schedule.fraction_done(after), shown, norm, rate)


def _is_measured(schedule: Schedule, progress: Progress) -> bool:
    every = schedule.measure_every_steps
    return schedule.is_over(progress) or (every > 0 and progress.step % every == 0)


def _measure(
    task: Task, weights: MasterWeights, schedule: Schedule, progress: Progress, folder: Path
) -> tuple[Progress, Mapping[str, float]]:
    with weights.float32(), torch.no_grad():
        measured = task.measure()
    if not schedule.watch or not measured:
        return progress, measured
    value = measured[schedule.watch]
    if progress.best is not None and value <= progress.best:
        return replace(progress, num_stale=progress.num_stale + 1), measured
    _save_checkpoint(task, weights, folder / "best")
    return replace(progress, best=value, num_stale=0), measured


def _save_checkpoint(task: Task, weights: MasterWeights, folder: Path) -> None:
    with weights.float32(), torch.no_grad():
        replace_folder(folder, task.save)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """A predicate that turns true on SIGINT or SIGTERM; the earlier handlers come back at the end."""
    asked: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    earlier = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
