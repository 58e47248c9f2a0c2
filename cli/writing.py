"""Writes files' passages into a collection, in batches, trying again while the services are away."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from typing import TypeVar

from cli.patience import patiently
from ingestion.files import FoundFile
from ingestion.passages import Passage as CutPassage
from ingestion.sync import part_digest, stale_parts
from rag_client import Passage, RagClient, Source, TextSpan, UpsertResult, field

BATCH_PASSAGES = 128  # Few enough to see progress, enough to fill the encoder.

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Written:
    """Counts of files, and of passages by outcome; `refusals` says which were not written, and why."""

    num_files: int = 0
    num_inserted: int = 0
    num_updated: int = 0
    num_unchanged: int = 0
    num_duplicates: int = 0
    num_deleted: int = 0
    refusals: tuple[str, ...] = ()

    def __add__(self, other: "Written") -> "Written":
        return Written(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def num_passages(self) -> int:
        """Passages that the collection now holds for what was written."""
        return self.num_inserted + self.num_updated + self.num_unchanged + self.num_duplicates


class SourceWriter:
    """Writes files. A file's digest is recorded with its last write, so one that was interrupted is done again.

    Small files go together in one stream, which is one transaction: each is found as it was or as it is now. A file
    of more than one batch is written batch by batch, each durable when it is acknowledged and cheap to repeat; what
    is stale goes after the last of them.
    """

    def __init__(
        self,
        client: RagClient,
        collection: str,
        existing: Mapping[str, str],
        *,
        on_written: Callable[[Written], None],
        on_wait: Callable[[str], None] = lambda reason: None,
        batch_passages: int = BATCH_PASSAGES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepares the writer.

        Args:
            client: Of the gateway.
            collection: Where to.
            existing: The collection's sources (name → digest) as they were at the start.
            on_written: Is told of each batch.
            on_wait: Is told why before each pause.
            batch_passages: Passages of a stream.
            sleep: Waits this many seconds.
        """
        self._client, self._collection, self._existing = client, collection, existing
        self._on_written, self._on_wait = on_written, on_wait
        self._batch_passages, self._sleep = batch_passages, sleep
        self._waiting: list[Passage] = []
        self._waiting_files: dict[FoundFile, set[str]] = {}

    def write(self, file: FoundFile, passages: Iterable[CutPassage]) -> None:
        """Takes a file's passages; a small one is written with those that follow, at the latest by `flush`."""
        remaining = iter(passages)
        batch, following = self._next_batch(remaining), self._next_batch(remaining)
        if following:
            self._write_large(file, batch, following, remaining)
            return
        if len(self._waiting) + len(batch) > self._batch_passages:
            self.flush()
        self._waiting += batch
        self._waiting_files[file] = {passage.source for passage in batch}

    def flush(self) -> None:
        """Writes what waits."""
        if not self._waiting_files:
            return
        sources = [source for file, names in self._waiting_files.items() for source in _sources(file, names)]
        self._upsert(self._waiting, sources, replace_sources=True, num_files=len(self._waiting_files))
        for file, names in self._waiting_files.items():
            self._delete_stale_parts(file, names)
        self._waiting, self._waiting_files = [], {}

    def _write_large(
        self, file: FoundFile, batch: list[Passage], following: list[Passage], remaining: Iterator[CutPassage]
    ) -> None:
        ids: set[str] = set()
        names: set[str] = set()
        is_complete = True
        while batch:
            ids.update(passage.id for passage in batch)
            names.update(passage.source for passage in batch)
            is_complete = self._upsert(batch) and is_complete
            batch, following = following, self._next_batch(remaining)
        sources = _sources(file, names)
        self._delete_stale(sources, ids)
        self._delete_stale_parts(file, names)
        if not is_complete:  # Without a digest the next run tries (and tells) again.
            sources = [Source(source.name) for source in sources]
        self._upsert((), sources, num_files=1)

    def _next_batch(self, passages: Iterator[CutPassage]) -> list[Passage]:
        return [_to_client(passage) for passage in islice(passages, self._batch_passages)]

    def _upsert(
        self,
        passages: Sequence[Passage],
        sources: Sequence[Source] = (),
        *,
        replace_sources: bool = False,
        num_files: int = 0,
    ) -> bool:
        """Writes one stream; whether all its passages were taken."""

        def call() -> UpsertResult:
            return self._client.upsert(
                passages, collection=self._collection, sources=sources, replace_sources=replace_sources
            )

        result = self._patiently(call)
        written = Written(
            num_files=num_files,
            num_inserted=result.num_inserted,
            num_updated=result.num_updated,
            num_unchanged=result.num_unchanged,
            num_duplicates=result.num_duplicates,
            num_deleted=result.num_deleted,
            refusals=tuple(f"{status.id}: {status.error}" for status in result.failures),
        )
        self._on_written(written)
        return not written.refusals

    def _delete_stale(self, sources: Iterable[Source], ids: set[str]) -> None:
        for source in sources:
            stored = self._patiently(partial(self._stored_ids, source.name))
            stale = iter([id_ for id_ in stored if id_ not in ids])
            while batch := list(islice(stale, self._batch_passages)):
                self._delete(ids=batch)

    def _stored_ids(self, source: str) -> list[str]:
        of_source = field("source") == source
        stored = self._client.list_passages(collection=self._collection, filter=of_source, page_size=1000)
        return [passage.id for passage in stored]

    def _delete_stale_parts(self, file: FoundFile, names: Iterable[str]) -> None:
        if stale := stale_parts(self._existing, file, names):
            self._delete(sources=stale)

    def _delete(self, *, ids: Sequence[str] | None = None, sources: Sequence[str] | None = None) -> None:
        result = self._patiently(lambda: self._client.delete(ids=ids, sources=sources, collection=self._collection))
        self._on_written(Written(num_deleted=result.num_deleted))

    def _patiently(self, call: Callable[[], Result]) -> Result:
        return patiently(call, on_wait=self._on_wait, sleep=self._sleep)


def _sources(file: FoundFile, names: set[str]) -> list[Source]:
    """The file itself, and the sources that its rows name."""
    part = part_digest(file.source, file.digest)
    return [Source(file.source, file.digest), *(Source(name, part) for name in sorted(names - {file.source}))]


def _to_client(passage: CutPassage) -> Passage:
    span = None
    if passage.start is not None and passage.end is not None:
        span = TextSpan(passage.start, passage.end, passage.page)
    return Passage(passage.id, passage.text, passage.title, passage.source, span, passage.metadata)
