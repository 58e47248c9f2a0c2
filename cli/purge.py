"""`rag delete` and `rag purge`: take passages or sources out of what is served, or out of everything that is kept."""

import argparse

from cli.render import print_json
from cli.selecting import add_selection_arguments, confirmed, selection
from cli.session import add_collection_argument, add_connection_arguments, connected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_selection_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_collection_argument(parser)
    add_connection_arguments(parser, has_timeout=False)


def run(arguments: argparse.Namespace) -> int:
    """Deletes or erases what is selected: the command says which."""
    chosen, is_purge = selection(arguments), arguments.command == "purge"
    verb, extent = ("erase", " and all its snapshots, for good") if is_purge else ("delete", "")
    names = ", ".join([*arguments.id, *arguments.source])
    question = f"{verb} {names} from collection {arguments.collection!r}{extent}?"
    if not confirmed(question, is_certain=arguments.yes):
        print("kept")
        return 1
    with connected(arguments) as client:
        if not is_purge:
            deleted = client.delete(collection=arguments.collection, **chosen)
            print_json(deleted) if arguments.json else print(f"deleted {deleted.num_deleted:,} passages")
            return 0
        result = client.purge(collection=arguments.collection, **chosen)
    if arguments.json:
        print_json(result)
        return 0
    rewritten = ", ".join(map(str, result.rewritten_index_generations))
    print(f"erased {result.num_purged:,} passages; rewrote index generations {rewritten}")
    print("backups and exports made before still hold them")
    return 0
