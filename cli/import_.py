"""`rag import`: the content of a file of `rag export` into a collection."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from cli.errors import CommandFailed
from cli.export_file import ExportReader, reading
from cli.patience import patiently
from cli.progress import Counter
from cli.session import add_connection_arguments, connected
from cli.writing import Written
from rag_client import Collection, EmbeddedPassage, Passage, RagClient, Source, UpsertResult

_BATCH = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("-c", "--collection", default="", help="its name (default: as in the file)")
    parser.add_argument("--encode", action="store_true", help="do not use the file's vectors: encode anew")
    add_connection_arguments(parser, has_timeout=False)


def run(arguments: argparse.Namespace) -> int:
    """Imports; what is there already is left as it is, so that an interrupted import is done again."""
    with reading(arguments.file) as file, connected(arguments) as client:
        name = arguments.collection or file.settings.name
        collection = _create(client, file, name)
        # The file has no vectors of sentences, and passages sent with a vector get none.
        uses_vectors = file.with_vectors and not arguments.encode and not collection.settings.sentence_vectors
        if uses_vectors and collection.encoder.digest != file.encoder_digest:
            raise CommandFailed(
                f"the file's vectors are of encoder {file.encoder_name}, collection {name!r} has "
                f"{collection.encoder.name}: start the retriever with that encoder, or use --encode"
            )
        written = _import(client, name, file, uses_vectors=uses_vectors)
        digest = client.describe_collection(name).index_digest
    for refusal in written.refusals:
        print(f"refused: {refusal}", file=sys.stderr)
    print(
        f"imported {written.num_passages:,} passages into {name!r}: {written.num_inserted:,} new, "
        f"{written.num_updated:,} changed, {written.num_unchanged:,} there already"
    )
    if digest == file.digest:
        print(f"the collection is what was exported, digest {digest[:12]}")
    elif uses_vectors:
        print("the collection holds more than, or other than, what was exported")
    return 1 if written.refusals else 0


def _create(client: RagClient, file: ExportReader, name: str) -> Collection:
    """The collection: one that is there, or a new one of the file's settings."""
    there = {each.name: each for each in client.list_collections()}
    if name in there:
        return there[name]
    retriever = client.info().retriever
    is_default = retriever is not None and retriever.encoder.digest == file.encoder_digest
    settings = replace(file.settings, name=name, encoder="" if is_default else file.settings.encoder)
    options = {each: getattr(settings, each) for each in settings.__dataclass_fields__ if each != "name"}
    return client.create_collection(name, **options)


def _import(client: RagClient, name: str, file: ExportReader, *, uses_vectors: bool) -> Written:
    sources: list[Source] = []
    total = Written()
    with Counter("importing") as counter:
        passages = _passages(file, sources, uses_vectors=uses_vectors)
        while batch := list(islice(passages, _BATCH)):
            total += _upsert(client, name, batch, ())
            counter.show(total.num_passages, file.num_passages)
        remaining = iter(sources)
        while some := list(islice(remaining, _BATCH)):  # Last: a source is complete when its passages are there.
            total += _upsert(client, name, (), some)
    return total


def _passages(file: ExportReader, sources: list[Source], *, uses_vectors: bool) -> Iterator[Passage | EmbeddedPassage]:
    for item in file.items():
        if isinstance(item, Source):
            sources.append(item)
        elif isinstance(item, EmbeddedPassage) and not uses_vectors:
            yield item.passage
        else:
            yield item


def _upsert(
    client: RagClient, name: str, passages: Sequence[Passage | EmbeddedPassage], sources: Sequence[Source]
) -> Written:
    call = partial(client.upsert, passages, collection=name, sources=sources)
    result: UpsertResult = patiently(call, on_wait=lambda reason: print(f"waiting: {reason}", file=sys.stderr))
    return Written(
        num_inserted=result.num_inserted,
        num_updated=result.num_updated,
        num_unchanged=result.num_unchanged,
        num_duplicates=result.num_duplicates,
        refusals=tuple(f"{status.id}: {status.error}" for status in result.failures),
    )
