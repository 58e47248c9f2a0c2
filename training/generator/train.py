"""The training loop: examples in, a checkpoint out, resumable at the exact step.

Knows nothing of where the data or the first weights come from.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from transformers import PreTrainedTokenizerBase

from training.generator.checkpoints import Progress, load_state, save_checkpoint, save_state
from training.generator.examples import Batch, ExampleStream
from training.generator.objective import Objective
from training.generator.optimizer import MasterWeights


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how to train.

    The learning rate decays to zero over ``max_examples``, or over ``max_minutes`` of training where that comes first;
    only a run that the examples end is the same bit for bit when repeated.
    """

    max_examples: int
    batch_size: int = 16
    max_minutes: float | None = None
    warmup_ratio: float = 0.03
    save_every_seconds: float = 300.0
    seed: int = 0
    dtype: torch.dtype = torch.bfloat16

    def fraction_done(self, progress: Progress) -> float:
        """Share of the run behind ``progress``, in [0, 1]."""
        by_examples = progress.step * self.batch_size / self.max_examples
        by_time = progress.elapsed_seconds / (60 * self.max_minutes) if self.max_minutes else 0.0
        return min(1.0, max(by_examples, by_time))


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step's numbers for whoever displays them; losses in nats."""

    step: int
    fraction_done: float
    language_model: float
    span: float
    guidance: float
    gradient_norm: float
    examples_per_second: float


def train(
    objective: Objective,
    stream: ExampleStream,
    tokenizer: PreTrainedTokenizerBase,
    schedule: Schedule,
    folder: Path,
    *,
    resume: bool,
    report: Callable[[StepReport], None],
) -> Progress:
    """Train until the schedule ends, or until SIGINT or SIGTERM, which save the state and return.

    Writes ``folder/state.pt`` now and then and ``folder/checkpoint`` (Hugging Face, float32) with it.
    """
    weights = MasterWeights(objective, dtype=schedule.dtype, warmup_ratio=schedule.warmup_ratio)
    progress = load_state(folder, weights) if resume else Progress()
    objective.train()
    batches = stream.batches(schedule.batch_size, first_step=progress.step)

    def save() -> None:
        save_state(folder, weights, progress)
        save_checkpoint(folder / "checkpoint", objective.generator, weights, tokenizer)

    saved_at = time.monotonic()
    with _stop_signals() as stop_asked:
        while schedule.fraction_done(progress) < 1 and not stop_asked():
            progress, numbers = _step(objective, weights, next(batches), schedule, progress)
            report(numbers)
            if time.monotonic() - saved_at > schedule.save_every_seconds:
                save()
                saved_at = time.monotonic()
    save()
    return progress


def _step(
    objective: Objective, weights: MasterWeights, batch: Batch, schedule: Schedule, progress: Progress
) -> tuple[Progress, StepReport]:
    started = time.monotonic()
    torch.manual_seed(schedule.seed * 1_000_003 + progress.step)
    terms = objective(batch)
    terms.total.backward()
    norm = weights.step(schedule.fraction_done(progress))
    seconds = time.monotonic() - started
    after = Progress(progress.step + 1, progress.elapsed_seconds + seconds)
    done = schedule.fraction_done(after)
    losses = (terms.language_model.item(), terms.span.item(), terms.guidance.item())
    return after, StepReport(after.step, done, *losses, norm, schedule.batch_size / seconds)


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
