"""How the commands that evaluate give their report: in the terminal, as JSON, as files."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import CommandFailed
from cli.render import make_console
from evaluation.html import can_draw, make_html
from evaluation.report import make_report
from evaluation.results import Run
from evaluation.tables import print_report

_SUFFIXES = (".json", ".html")


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --report and --slice-by."""
    parser.add_argument(
        "--report", type=Path, action="append", default=[], metavar="FILE",
        help="also write the report here: .json, or .html with plots and the worst questions; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--slice-by", action="append", default=[], metavar="FIELD",
        help="of the questions; may be repeated (default: every short field whose values recur)",
    )  # fmt: skip


def check_report_arguments(arguments: argparse.Namespace) -> None:
    """Fails now where a report could not be written after a long run."""
    for path in arguments.report:
        if path.suffix not in _SUFFIXES:
            raise CommandFailed(f"--report {path}: the name must end in {' or '.join(_SUFFIXES)}")
        if path.suffix == ".html" and not can_draw():
            raise CommandFailed("a report with plots needs matplotlib: pip install 'rag-serving[report]'")


def report_on(run: Run, arguments: argparse.Namespace) -> int:
    """Writes and prints the report as the arguments say; 1 when a question could not be answered for an error."""
    report = make_report(run, slice_by=arguments.slice_by)
    for path in arguments.report:
        content = make_html(run, report) if path.suffix == ".html" else report.to_json() + "\n"
        path.write_text(content, encoding="utf-8")
    if arguments.json:
        print(report.to_json())
    else:
        print_report(report, make_console())
    return 1 if report.counts["errors"] else 0


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Files and values that cannot be used end the command with one line."""
    try:
        yield
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise CommandFailed(str(error)) from error
