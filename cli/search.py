"""`rag search`: passages with their scores, without an answer."""

import argparse

from cli.asking import add_retrieval_arguments, is_empty, retrieval_options
from cli.render import make_console, print_json, print_passages
from cli.session import connected, empty_collection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("query", metavar="QUERY")
    add_retrieval_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Searches once."""
    with connected(arguments) as client:
        found = client.retrieve(arguments.query, **retrieval_options(arguments))
        if not found.passages and is_empty(client, arguments.collection):
            raise empty_collection(arguments.collection)
    if arguments.json:
        print_json(found)
    elif found.passages:
        print_passages(found.passages, make_console())
    else:
        print("no passage found")
    return 0
