"""`python -m benchmarks.retriever`: encoding and searching against other programs, and with `--curves` the curves.

Vectors are synthetic and clustered, the same for all; recall@10 is fixed. CPU time is what to compare where other
programs run on the machine; wall time is given too. Every finished cell is kept, data sets too: an interrupted run goes
on where it stopped, `--fresh` measures anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.generator.store import Store
from benchmarks.machine import RESULTS, ROOT, describe
from benchmarks.retriever import cells, engines, goals


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is left of the plan and writes the result."""
    options = _parser().parse_args(argv)
    console, origin = Console(), describe()
    digest = hashlib.sha256(json.dumps([origin["machine"], origin["commit"], options.rounds]).encode()).hexdigest()[:16]
    store = Store(options.work / "cells.jsonl", origin=digest, fresh=options.fresh)
    plan = [*cells.main_plan(), *(cells.curve_plan() if options.curves else ())]
    for cell in plan:
        if options.only in cell.name and cell.name not in store.cells:
            console.print(cell.name)
            store.keep(cell.name, cell.run(options.work, options.rounds))
    rows = goals.rows(store.cells)
    missing = [name for name in engines.ENGINES if not engines.is_installed(name)]
    written = {**origin, "rounds": options.rounds, "not_installed": missing, "rows": [row.as_json() for row in rows],
               "cells": store.cells}  # fmt: skip
    options.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    _print(rows, console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", action="store_true", help="also 10k to 2M vectors and 1 to 64 callers")
    parser.add_argument("--fresh", action="store_true", help="forget the cells of earlier runs")
    parser.add_argument("--only", default="", help="measure only the cells whose names contain this")
    parser.add_argument("--rounds", type=int, default=10, help="how much is measured (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "retriever_cpu.json")
    parser.add_argument("--work", type=Path, default=ROOT / ".scratch" / "retriever", help="data and finished cells")
    return parser


def _print(rows: Sequence[goals.Row], console: Console) -> None:
    table = Table("", "peer", "peer's", "ours", "", "goal", "")
    for row in rows:
        verdict = {True: "met", False: "missed", None: ""}[row.is_met]
        numbers = (row.peer_value, row.ours_value, row.ratio, row.goal)
        table.add_row(row.name, row.peer, *("" if one is None else f"{one:,.4g}" for one in numbers), verdict)
    console.print(table)


if __name__ == "__main__":
    main()
