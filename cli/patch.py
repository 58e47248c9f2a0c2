"""`rag patch`: change metadata of passages without touching their text."""

import argparse
import json
from typing import Any

from cli.render import print_json
from cli.selecting import add_selection_arguments, selection
from cli.session import add_collection_argument, add_connection_arguments, connected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_selection_arguments(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=VALUE",
        help='a JSON value, such as 1990, true or ["a", "b"]; anything else is a string; may be repeated',
    )
    parser.add_argument("--remove", action="append", default=[], metavar="NAME", help="may be repeated")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_collection_argument(parser)
    add_connection_arguments(parser, has_timeout=False)


def run(arguments: argparse.Namespace) -> int:
    """Changes what is selected."""
    chosen = selection(arguments)
    with connected(arguments) as client:
        result = client.patch_metadata(
            set=dict(arguments.set), remove=arguments.remove, collection=arguments.collection, **chosen
        )
    print_json(result) if arguments.json else print(f"changed {result.num_patched:,} passages")
    return 0


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        given = json.loads(value)
    except ValueError:
        return name, value
    if given is None or isinstance(given, dict):
        raise argparse.ArgumentTypeError(f"{name} can be a string, number, bool or list of strings, not {value}")
    if isinstance(given, int) and not -(1 << 63) <= given < 1 << 63:
        raise argparse.ArgumentTypeError(f"{name} is a whole number of more than 64 bits: {value}")
    return name, given
