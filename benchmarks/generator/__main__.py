"""`python -m benchmarks.generator`: every number of the goal table, ours against transformers, and the scaling curves.

Both sides answer the same questions with the same weights in the same run, taking turns. On the CPU what counts is
process CPU time with one thread, so that neighbours on the machine change the ratios little. Every finished cell is
kept: an interrupted run goes on where it stopped, `--fresh` starts over.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.generator import goals
from benchmarks.generator.cells import Cell, cpu_plan, distinct, gpu_plan, quick_plan
from benchmarks.generator.lab import Lab
from benchmarks.generator.store import Store
from benchmarks.machine import RESULTS, ROOT, describe

_PLANS: dict[str, Callable[[], Iterator[Cell]]] = {"cpu": cpu_plan, "cuda": gpu_plan}
_OUTPUTS = {"cpu": RESULTS / "generator_cpu.json", "cuda": RESULTS / "generator_gpu.json"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is left of the plan and writes the result."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    origin = describe()
    if options.device == "cuda":
        origin["gpu"] = torch.cuda.get_device_name()
    plan = distinct(quick_plan() if options.quick else _PLANS[options.device]())
    settings = json.dumps([origin["machine"], origin["commit"], options.device, options.repeats])
    digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
    store = Store(options.work / f"{options.device}.jsonl", origin=digest, fresh=options.fresh)
    console = Console()
    _measure(plan, store, options, console)
    rows = goals.rows(store.cells, device=options.device)
    _print(rows, console)
    cells = {cell.name: store.cells[cell.name] for cell in plan if cell.name in store.cells}
    written = {**origin, "repeats": options.repeats, "rows": [row.as_json() for row in rows], "cells": cells}
    output: Path = options.output or _OUTPUTS[options.device]
    output.write_text(json.dumps(written, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(_PLANS), default="cpu")
    parser.add_argument("--quick", action="store_true", help="two small cells, to see that the program works")
    parser.add_argument("--fresh", action="store_true", help="forget the cells of earlier runs")
    parser.add_argument("--only", default="", help="measure only the cells whose names contain this")
    parser.add_argument("--repeats", type=int, default=3, help="rounds over a cell's variants; medians count")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/generator_cpu.json or _gpu.json")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".scratch" / "generator", help="checkpoints and finished cells"
    )
    return parser


def _measure(plan: list[Cell], store: Store, options: argparse.Namespace, console: Console) -> None:
    chosen = [cell for cell in plan if options.only in cell.name]
    left = [cell for cell in chosen if cell.name not in store.cells]
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    lab = Lab(options.work / "checkpoints", device=options.device)
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=len(chosen), completed=len(chosen) - len(left))
            for cell in left:
                progress.update(task, description=cell.name)
                store.keep(cell.name, cell.run(lab, options.repeats))
                progress.console.print(cell.name)
                progress.advance(task)
    finally:
        lab.close()


def _print(rows: Sequence[goals.Row], console: Console) -> None:
    table = Table("", "", "peer or floor ms", "ours ms", "value", "goal", "")
    for row in rows:
        table.add_row(row.name, row.variant, *(_text(number) for number in _numbers(row)), _verdict(row))
    if rows:
        console.print(table)


def _numbers(row: goals.Row) -> list[Any]:
    return [row.peer_ms, row.ours_ms, row.value, row.goal]


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:,.4g}" if abs(number) < 1e4 else f"{number:,.0f}"


def _verdict(row: goals.Row) -> str:
    return {True: "met", False: "missed", None: ""}[row.is_met]


if __name__ == "__main__":
    main()
