"""Which passages a command is about."""

import argparse
import functools
import json
import operator
import re
from collections.abc import Sequence
from typing import Any, TypedDict

from cli.errors import CommandFailed
from rag_client import Filter, field

_COMPARISONS = {"=": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt,
                "<": operator.lt}  # fmt: skip
_CONDITION = re.compile(r"([^=!<>\s]+)\s*(!=|>=|<=|=|<|>)\s*(.*)", re.DOTALL)


class Selected(TypedDict, total=False):
    """One of the three."""

    ids: Sequence[str]
    sources: Sequence[str]
    filter: Filter


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --id, --source and --filter."""
    parser.add_argument("--id", action="append", default=[], help="a passage; may be repeated")
    parser.add_argument("--source", action="append", default=[], help="every passage of a file or URL; may be repeated")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        type=_condition,
        metavar="'NAME OP VALUE'",
        help="passages whose filterable metadata agrees: OP is =, !=, <, <=, > or >=, VALUE a JSON value, or else a "
        "string; with = and != a JSON list is any of its values; repeated, all must hold",
    )


def selection(arguments: argparse.Namespace) -> Selected:
    """The selection as the client takes it."""
    if sum(map(bool, (arguments.id, arguments.source, arguments.filter))) != 1:
        raise CommandFailed("give either --id, --source or --filter")
    if arguments.filter:
        return Selected(filter=functools.reduce(operator.and_, (condition for _, condition in arguments.filter)))
    return Selected(ids=arguments.id) if arguments.id else Selected(sources=arguments.source)


def described(arguments: argparse.Namespace) -> str:
    """The selection in words."""
    conditions = " and ".join(text for text, _ in arguments.filter)
    return ", ".join([*arguments.id, *arguments.source]) or f"all passages with {conditions}"


def confirmed(question: str, *, is_certain: bool) -> bool:
    """Whether the person at the terminal says yes, or has said so before."""
    if is_certain:
        return True
    try:
        reply = input(f"{question} [y/N] ")
    except EOFError:
        reply = ""
    return reply.strip().lower() in ("y", "yes")


def _condition(text: str) -> tuple[str, Filter]:
    """A condition, with the text it was given as."""
    parts = _CONDITION.fullmatch(text.strip())
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME OP VALUE, as in 'year >= 2020'")
    name, sign, given = parts.groups()
    value: Any
    try:
        value = json.loads(given)
    except ValueError:
        value = given
    if value is None or isinstance(value, dict) or (isinstance(value, list) and sign not in ("=", "!=")):
        raise argparse.ArgumentTypeError(f"{name} cannot be compared by {sign} with {given}")
    if isinstance(value, list):
        among = field(name).isin(value)
        return text, among if sign == "=" else ~among
    condition: Filter = _COMPARISONS[sign](field(name), value)
    return text, condition
