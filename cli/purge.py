"""`rag delete` and `rag purge`: take passages or sources out of what is served, or out of everything that is kept."""

import argparse
from itertools import islice

from cli.errors import CommandFailed
from cli.render import print_json
from cli.selecting import Selected, add_selection_arguments, confirmed, described, selection
from cli.session import add_collection_argument, add_connection_arguments, connected
from rag_client import RagClient

_MAX_PURGED = 10_000  # The server's limit.


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
    question = f"{verb} {described(arguments)} from collection {arguments.collection!r}{extent}?"
    if not confirmed(question, is_certain=arguments.yes):
        print("kept")
        return 1
    with connected(arguments) as client:
        if not is_purge:
            deleted = client.delete(collection=arguments.collection, **chosen)
            print_json(deleted) if arguments.json else print(f"deleted {deleted.num_deleted:,} passages")
            return 0
        erased = _by_id(client, arguments.collection, chosen)
        result = client.purge(collection=arguments.collection, ids=erased.get("ids"), sources=erased.get("sources"))
    if arguments.json:
        print_json(result)
        return 0
    rewritten = ", ".join(map(str, result.rewritten_index_generations))
    print(f"erased {result.num_purged:,} passages; rewrote index generations {rewritten}")
    print("backups and exports made before still hold them")
    return 0


def _by_id(client: RagClient, collection: str, chosen: Selected) -> Selected:
    """The selection; a filter as the ids of the passages that match now, which a purge then follows everywhere."""
    if "filter" not in chosen:
        return chosen
    matching = client.list_passages(collection=collection, filter=chosen["filter"], page_size=1000)
    ids = [passage.id for passage in islice(matching, _MAX_PURGED + 1)]
    if not ids:
        raise CommandFailed("no passage matches the filter")
    if len(ids) > _MAX_PURGED:
        raise CommandFailed(f"more than {_MAX_PURGED:,} passages match: purge them by --source, or by narrower filters")
    return Selected(ids=ids)
