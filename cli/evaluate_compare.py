"""`rag evaluate compare`: whether a run is better than another on the same questions, and on which."""

import argparse
from pathlib import Path

from cli.render import make_console
from cli.reporting import told_in_one_line
from evaluation.comparison import compare
from evaluation.results import read_run
from evaluation.tables import print_comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("first", type=Path, metavar="FIRST", help="results of `rag evaluate`: the system before")
    parser.add_argument("second", type=Path, metavar="SECOND", help="results on the same questions: the system after")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, all changed questions too")


def run(arguments: argparse.Namespace) -> int:
    """Compares."""
    with told_in_one_line():
        comparison = compare(read_run(arguments.first), read_run(arguments.second))
    if arguments.json:
        print(comparison.to_json())
    else:
        print_comparison(comparison, make_console())
    return 0
