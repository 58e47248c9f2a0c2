"""`rag snapshot`: freeze a collection's state, serve it, roll back, compare."""

import argparse

from rich.table import Table

from cli.errors import CommandFailed
from cli.render import make_console, print_json
from cli.session import add_collection_argument, add_connection_arguments, connected
from rag_client import Activation, RagClient, Snapshot

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_DIGEST_CHARS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="freeze the collection's present state")
    create.add_argument("label", nargs="?", default="", help="for people")
    listing = actions.add_parser("list", help="list the index generations, newest first")
    activate = actions.add_parser("activate", help="serve a generation from now on")
    activate.add_argument("generation", metavar="NUMBER|head", help="the head is the state that takes the writes")
    rollback = actions.add_parser("rollback", help="serve the newest generation older than the one served now")
    diff = actions.add_parser("diff", help="show which passages differ: + added, - removed, ~ changed")
    diff.add_argument("before", type=int, metavar="FROM")
    diff.add_argument("after", type=int, metavar="TO", nargs="?", default=0, help="(default: the one served)")
    drop = actions.add_parser("drop", help="delete a snapshot that is not served")
    drop.add_argument("number", type=int, metavar="NUMBER")
    for action in (create, listing, activate, rollback, diff, drop):
        add_collection_argument(action)
        add_connection_arguments(action, has_timeout=False)
    for action in (create, listing, activate, rollback, diff):
        action.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs one action."""
    name = arguments.collection
    with connected(arguments) as client:
        match arguments.action:
            case "create":
                _show([client.create_snapshot(arguments.label, collection=name)], as_json=arguments.json)
            case "list":
                _show(client.list_snapshots(collection=name), as_json=arguments.json)
            case "activate":
                number = _number(client, name, arguments.generation)
                _tell(client.activate_snapshot(number, collection=name), as_json=arguments.json)
            case "rollback":
                _tell(client.activate_snapshot(_before_active(client, name), collection=name), as_json=arguments.json)
            case "diff":
                _diff(client, arguments)
            case "drop":
                client.drop_snapshot(arguments.number, collection=name)
                print(f"dropped index generation {arguments.number}")
    return 0


def _number(client: RagClient, collection: str, given: str) -> int:
    if given.isdecimal():
        return int(given)
    if given != "head":
        raise CommandFailed(f"{given!r} is neither a number nor 'head'")
    return next(each.index_generation for each in client.list_snapshots(collection=collection) if each.label == "head")


def _before_active(client: RagClient, collection: str) -> int:
    found = client.list_snapshots(collection=collection)
    active = next(each.index_generation for each in found if each.is_active)
    older = [each.index_generation for each in found if each.index_generation < active and not each.is_live]
    if not older:
        raise CommandFailed(f"collection {collection!r} has no snapshot older than {active}, the one served")
    return max(older)


def _diff(client: RagClient, arguments: argparse.Namespace) -> None:
    found = client.diff_snapshots(arguments.before, arguments.after, collection=arguments.collection)
    if arguments.json:
        print_json(list(found))
        return
    for difference in found:
        print(f"{_SIGNS[difference.change.value]} {difference.passage_id}")


def _tell(activation: Activation, *, as_json: bool) -> None:
    if as_json:
        print_json(activation)
        return
    snapshot = activation.snapshot
    label = f" ({snapshot.label})" if snapshot.label else ""
    print(
        f"serving index generation {snapshot.index_generation}{label} with {snapshot.num_passages:,} passages; "
        f"before: {activation.previous_index_generation}"
    )


def _show(snapshots: list[Snapshot], *, as_json: bool) -> None:
    if as_json:
        print_json(snapshots)
        return
    table = Table(
        "generation", "label", "passages", "at change", "created (UTC)", "digest", "", box=None, pad_edge=False
    )
    for each in snapshots:
        state = " ".join(word for word, holds in (("served", each.is_active), ("live", each.is_live)) if holds)
        created = f"{each.created_at:%Y-%m-%d %H:%M:%S}" if each.created_at.timestamp() else ""
        counts = (f"{each.num_passages:,}", f"{each.sequence:,}")
        table.add_row(str(each.index_generation), each.label, *counts, created, each.digest[:_DIGEST_CHARS], state)
    make_console().print(table)
