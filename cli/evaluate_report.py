"""`rag evaluate report`: the report on results that are there already; no gateway is needed."""

import argparse
from pathlib import Path

from cli.reporting import add_report_arguments, check_report_arguments, report_on, told_in_one_line
from evaluation.results import read_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("results", type=Path, metavar="FILE", help="of `rag evaluate`, finished or not")
    add_report_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Reports."""
    check_report_arguments(arguments)
    with told_in_one_line():
        return report_on(read_run(arguments.results), arguments)
