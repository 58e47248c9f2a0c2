"""Which passages a command is about."""

import argparse
from collections.abc import Sequence
from typing import TypedDict

from cli.errors import CommandFailed


class Selected(TypedDict, total=False):
    """One of the two."""

    ids: Sequence[str]
    sources: Sequence[str]


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --id and --source."""
    parser.add_argument("--id", action="append", default=[], help="a passage; may be repeated")
    parser.add_argument("--source", action="append", default=[], help="every passage of a file or URL; may be repeated")


def selection(arguments: argparse.Namespace) -> Selected:
    """The selection as the client takes it."""
    if bool(arguments.id) == bool(arguments.source):
        raise CommandFailed("give either --id or --source")
    return Selected(ids=arguments.id) if arguments.id else Selected(sources=arguments.source)


def confirmed(question: str, *, is_certain: bool) -> bool:
    """Whether the person at the terminal says yes, or has said so before."""
    if is_certain:
        return True
    try:
        reply = input(f"{question} [y/N] ")
    except EOFError:
        reply = ""
    return reply.strip().lower() in ("y", "yes")
