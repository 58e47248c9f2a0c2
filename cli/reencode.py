"""`rag reencode`: another encoder's vectors for a collection, built while the present ones serve."""

import argparse

from cli.progress import Counter
from cli.render import print_json
from cli.session import add_collection_argument, add_connection_arguments, connected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "encoder", nargs="?", default="", help="name or path, one of the server's (default: its default encoder)"
    )
    parser.add_argument("--activate", action="store_true", help="serve the new generation when it is complete")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_collection_argument(parser)
    add_connection_arguments(parser, has_timeout=False)


def run(arguments: argparse.Namespace) -> int:
    """Re-encodes, telling how far it is; interrupted, the same command goes on."""
    with connected(arguments) as client, Counter("encoding") as counter:
        last = None
        for last in client.reencode_collection(
            arguments.encoder, activate=arguments.activate, collection=arguments.collection
        ):
            counter.show(last.num_encoded, last.num_total)
    if last is None:
        return 1
    if arguments.json:
        print_json(last)
        return 0
    name = "" if arguments.collection == "default" else f" -c {arguments.collection}"
    state = "served" if arguments.activate else f"ready: `rag snapshot activate {last.index_generation}{name}`"
    print(f"encoded {last.num_encoded:,} passages; index generation {last.index_generation} is {state}")
    return 0
