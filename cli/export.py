"""`rag export`: a collection as one file, to be read by `rag import` on any machine."""

import argparse
from pathlib import Path

from cli.errors import CommandFailed
from cli.export_file import writing
from cli.progress import Counter
from cli.session import add_collection_argument, add_connection_arguments, connected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="e.g. kb.jsonl or kb.jsonl.gz")
    parser.add_argument("--no-vectors", action="store_true", help="leave the vectors out: importing encodes anew")
    parser.add_argument(
        "--index-generation", type=int, default=0, metavar="NUMBER", help="(default: the one that is served)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    add_collection_argument(parser)
    add_connection_arguments(parser, has_timeout=False)


def run(arguments: argparse.Namespace) -> int:
    """Writes the file; it appears complete, or not at all."""
    path: Path = arguments.file
    if path.exists() and not arguments.force:
        raise CommandFailed(f"{path} exists: take another name, or --force")
    with connected(arguments) as client, writing(path) as file, Counter("exporting") as counter:
        collection = client.describe_collection(arguments.collection)
        with_vectors = not arguments.no_vectors
        for batch in client.export_collection(
            collection=arguments.collection,
            index_generation=arguments.index_generation,
            include_vectors=with_vectors,
        ):
            if batch.snapshot is not None:
                if batch.snapshot.encoder_digest != collection.encoder.digest:
                    raise CommandFailed(
                        f"generation {batch.snapshot.index_generation} has another encoder than the one served: "
                        "activate it first"
                    )
                file.header(collection, batch.snapshot, with_vectors=with_vectors)
            for passage in batch.passages:
                file.passage(passage)
            for source in batch.sources:
                file.source(source)
            counter.show(file.num_passages, batch.num_total)
        file.end()
    print(f"exported {file.num_passages:,} passages from {file.num_sources:,} sources to {path}")
    return 0
