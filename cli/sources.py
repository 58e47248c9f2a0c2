"""`rag sources`: what a collection was made from."""

import argparse

from rich.table import Table

from cli.render import make_console, print_json
from cli.session import add_collection_argument, add_connection_arguments, connected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_collection_argument(parser)
    parser.add_argument("--prefix", default="", help="only names that start with it")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_connection_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Lists the sources."""
    with connected(arguments) as client:
        sources = list(client.list_sources(collection=arguments.collection, prefix=arguments.prefix, page_size=1000))
    if arguments.json:
        print_json(sources)
        return 0
    table = Table("source", "passages", "updated", "digest", box=None, pad_edge=False)
    for source in sources:
        updated = f"{source.updated_at:%Y-%m-%d %H:%M:%S %Z}" if source.updated_at else ""
        table.add_row(source.name, str(source.num_passages), updated, source.digest[:12])
    make_console().print(table)
    return 0
