"""The flags that training programs share."""

import argparse
import os
from pathlib import Path

import torch

from training.runtime.loop import Schedule


def add_data_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--data``: ``RAG_SHARED_DATA``, or where the shared data lies beside the project."""
    default = Path(os.environ.get("RAG_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of the shared training data")


def add_run_flags(parser: argparse.ArgumentParser, *, max_steps: int, batch_size: int, watch: str = "") -> None:
    """Add the flags of the loop; ``schedule_of`` reads them."""
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, required=True, help="folder of the state, the checkpoints and the logs")
    run.add_argument("--max-steps", type=int, default=max_steps, help="length of the whole schedule")
    run.add_argument("--max-minutes", type=float, default=None, help="end the schedule after this training time")
    run.add_argument("--batch-size", type=int, default=batch_size, help="questions of a micro-batch")
    run.add_argument("--accumulate", type=int, default=1, help="micro-batches per optimizer step")
    run.add_argument("--measure-every", type=int, default=0, metavar="STEPS", help="0: only at the end")
    run.add_argument("--watch", default=watch, metavar="METRIC", help="the best checkpoint by it is kept as OUT/best")
    run.add_argument("--patience", type=int, default=0, help="measurements without a better one that end the run")
    run.add_argument("--save-every", type=float, default=300.0, metavar="SECONDS")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of torch")
    run.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="the model's arithmetic")
    run.add_argument("--resume", action="store_true", help="go on where the state in --out stands")


def schedule_of(flags: argparse.Namespace) -> Schedule:
    """The schedule that the flags name; sets torch's threads, too.

    Raises:
        SystemExit: a number is out of its range, by the flag's name.
    """
    for name in ("max_steps", "batch_size", "accumulate", "threads"):
        if getattr(flags, name) < 1:
            raise SystemExit(f"--{name.replace('_', '-')} must be at least 1, not {getattr(flags, name)}")
    torch.set_num_threads(flags.threads)
    return Schedule(
        max_steps=flags.max_steps,
        accumulate=flags.accumulate,
        max_minutes=flags.max_minutes,
        save_every_seconds=flags.save_every,
        measure_every_steps=flags.measure_every,
        watch=flags.watch,
        patience=flags.patience,
        seed=flags.seed,
        dtype=getattr(torch, flags.dtype),
    )
