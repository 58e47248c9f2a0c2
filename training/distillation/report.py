"""``rag distill report``: quality, size and speed of a teacher and its student, side by side."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from training.distillation.report_encoders import compare_encoders
from training.distillation.report_generators import compare_generators
from training.distillation.side_by_side import show
from training.runtime.flags import add_data_flag


def main(arguments: list[str] | None = None) -> None:
    """Measures both, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(prog="rag distill report", description=__doc__)
    parser.add_argument("--teacher", required=True, help='directory or name of a generator or encoder; or "default"')
    parser.add_argument("--student", type=Path, required=True, help="directory of another of its kind")
    add_data_flag(parser)
    parser.add_argument("--limit", type=int, default=1000, help="questions, a fixed random sample")
    parser.add_argument("--timed", type=int, default=40, help="questions whose CPU time is taken")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    flags = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = [flags.teacher, str(flags.student)]
    compare = compare_generators if _is_generator(flags.student) else compare_encoders
    lines = compare(names, flags.data, limit=flags.limit, num_timed=flags.timed)
    show(lines, Console())
    if flags.out is not None:
        report = {"teacher": names[0], "student": names[1], "lines": [asdict(line) for line in lines]}
        flags.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _is_generator(folder: Path) -> bool:
    path = folder / "config.json"
    if not path.exists():
        raise SystemExit(f"{folder} holds no config.json: it is no checkpoint")
    return bool(json.loads(path.read_text(encoding="utf-8")).get("is_encoder_decoder"))
