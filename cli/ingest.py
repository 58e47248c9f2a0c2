"""`rag ingest`: makes a collection hold what files hold. Idempotent, and safe to kill and repeat at any moment."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.errors import CommandFailed
from cli.patience import patiently
from cli.session import add_collection_argument, add_connection_arguments, connected
from cli.writing import SourceWriter, Written
from ingestion.chunker import ChunkOptions
from ingestion.errors import UnreadableFile
from ingestion.files import SkippedFile, find_files
from ingestion.reading import ReadOptions, read_passages
from ingestion.rows import MetadataColumn
from ingestion.sync import SyncPlan, plan_sync
from rag_client import RagClient
from rag_client.errors import NotFound

_MAX_SOURCES_PER_DELETE = 1000
_NUM_REFUSALS_SHOWN = 10


@dataclass(slots=True)
class Summary:
    """What happened, for the table at the end."""

    plan: SyncPlan
    skipped: list[SkippedFile]
    failed: list[SkippedFile] = field(default_factory=list)
    written: Written = field(default_factory=Written)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or directories with all below them")
    add_collection_argument(parser)
    parser.add_argument("--chunk-words", type=int, default=100, metavar="N", help="most words of a passage (100)")
    parser.add_argument("--overlap", type=int, default=0, metavar="N", help="words that neighbours share (0)")
    parser.add_argument("--language", default="en", help="ISO code, for sentence rules (%(default)s)")
    parser.add_argument("--cut-rows", action="store_true", help="cut the rows of .jsonl/.csv/.tsv files, too")
    parser.add_argument(
        "--metadata-column",
        action="append",
        default=[],
        metavar="NAME[:TYPE]",
        help="keep this column of row files as metadata; TYPE is string, int, double or bool (repeatable)",
    )
    parser.add_argument(
        "--delete-vanished", action="store_true", help="delete sources of the collection that are not among the PATHs"
    )
    parser.add_argument(
        "--again", action="store_true", help="do unchanged files again, e.g. after changing --chunk-words"
    )
    add_connection_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ingests; 1 when a file or passage could not be."""
    options = _read_options(arguments)
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # It warns of what readers of PDFs never notice.
    try:
        found, skipped = find_files(arguments.paths)
    except UnreadableFile as error:
        raise CommandFailed(str(error)) from error
    with connected(arguments) as client:
        existing = _existing_sources(client, arguments.collection)
        plan = plan_sync({} if arguments.again else existing, found)
        summary = Summary(plan, skipped)
        _ingest(client, arguments.collection, existing, options, summary)
        if arguments.delete_vanished:
            vanished = plan_sync(existing, found).vanished
            _delete(client, arguments.collection, vanished, summary)
    _report(summary, has_deleted=arguments.delete_vanished)
    return 1 if summary.failed or summary.written.refusals else 0


def _read_options(arguments: argparse.Namespace) -> ReadOptions:
    try:
        return ReadOptions(
            chunks=ChunkOptions(arguments.chunk_words, arguments.overlap, arguments.language),
            cut_rows=arguments.cut_rows,
            metadata_columns=tuple(map(MetadataColumn.parse, arguments.metadata_column)),
        )
    except ValueError as error:
        raise CommandFailed(str(error)) from error


def _existing_sources(client: RagClient, collection: str) -> dict[str, str]:
    """Digests by name; makes the collection if it does not exist. Waits for the services, but not for a gateway."""

    def read() -> dict[str, str]:
        try:
            return {source.name: source.digest for source in client.list_sources(collection=collection, page_size=1000)}
        except NotFound:
            client.create_collection(collection)
            print(f"created collection {collection!r}", file=sys.stderr)
            return {}

    return patiently(read, on_wait=_tell_waiting, is_hopeless=lambda error: error.reason == "UNREACHABLE")


def _ingest(
    client: RagClient, collection: str, existing: Mapping[str, str], options: ReadOptions, summary: Summary
) -> None:
    files = [*summary.plan.added, *summary.plan.changed]
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files  {task.fields[num_passages]:,} passages"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[source]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(files), num_passages=0, source="")

        def on_written(written: Written) -> None:
            summary.written += written
            done = summary.written.num_files + len(summary.failed)
            progress.update(task, completed=done, num_passages=summary.written.num_passages)

        writer = SourceWriter(client, collection, existing, on_written=on_written, on_wait=_tell_waiting)
        for file in files:
            progress.update(task, source=file.source)
            try:
                writer.write(file, read_passages(file.path, file.source, options))
            except UnreadableFile as error:
                summary.failed.append(SkippedFile(file.path, str(error)))
        writer.flush()


def _tell_waiting(reason: str) -> None:
    print(f"waiting for the services: {reason}", file=sys.stderr)


def _delete(client: RagClient, collection: str, names: Sequence[str], summary: Summary) -> None:
    remaining = iter(names)
    while batch := list(islice(remaining, _MAX_SOURCES_PER_DELETE)):
        summary.written += Written(num_deleted=client.delete(sources=batch, collection=collection).num_deleted)


def _report(summary: Summary, *, has_deleted: bool) -> None:
    plan, written = summary.plan, summary.written
    table = Table(show_header=False, box=None)
    vanished = f"{len(plan.vanished)} vanished" + ("" if has_deleted or not plan.vanished else " (kept)")
    table.add_row(
        "files", f"{len(plan.added)} new, {len(plan.changed)} changed, {len(plan.unchanged)} unchanged, {vanished}"
    )
    table.add_row(
        "passages",
        f"{written.num_inserted} added, {written.num_updated} updated, {written.num_unchanged} unchanged, "
        f"{written.num_duplicates} duplicates, {written.num_deleted} deleted",
    )
    Console(highlight=False).print(table)
    errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    for label, files in (("skipped", summary.skipped), ("failed", summary.failed)):
        for file in files:
            errors.print(f"{label} {file.path}: {file.reason}")
    for refusal in written.refusals[:_NUM_REFUSALS_SHOWN]:
        errors.print(f"refused {refusal}")
    if len(written.refusals) > _NUM_REFUSALS_SHOWN:
        errors.print(f"... and {len(written.refusals) - _NUM_REFUSALS_SHOWN} more passages")
