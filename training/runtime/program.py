"""What every training program does before and after it has read its own data and models."""

import argparse
import logging

from rich.console import Console

from training.runtime.display import ProgressDisplay
from training.runtime.flags import schedule_of
from training.runtime.loop import Schedule, Task, train
from training.runtime.optimizer import MasterWeights


def begin(flags: argparse.Namespace) -> Schedule:
    """Log to the terminal, set torch's threads; the schedule that the flags name.

    Raises:
        SystemExit: a number is out of its range, by the flag's name.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    return schedule_of(flags)


def run(task: Task, weights: MasterWeights, flags: argparse.Namespace, schedule: Schedule) -> None:
    """Train into ``--out`` and show how it goes."""
    with ProgressDisplay(schedule, Console()) as display:
        train(task, weights, schedule, flags.out, resume=flags.resume, report=display.show)
    logging.info("done: %s", flags.out / "checkpoint")
