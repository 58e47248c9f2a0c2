"""The writer's side: publishes every collection when its generations change, and its head from time to time.

Only what the store lacks is uploaded; the pointer to the new state is written last; then what no kept state needs is
deleted. Interrupted anywhere, the former state stays valid, and the next publication clears what was left.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from retriever_service.backends.protocol import local
from retriever_service.collection import CollectionSettings
from retriever_service.generations import STORE_FILE
from retriever_service.library import Library
from retriever_service.live_collection import LiveCollection
from retriever_service.metrics import RetrieverMetrics
from retriever_service.replicas.object_store import ObjectStore, first_line
from retriever_service.replicas.published import (
    DAMAGED,
    NOT_THE_WRITER,
    OBJECTS,
    STATES,
    Claim,
    Files,
    Publication,
    PublishedCollection,
    claim,
    publication_from_json,
    read_pointer,
    read_publication,
    write_publication,
)
from retriever_service.replicas.staging import stage_head, stage_snapshot
from serving.errors import FailedPrecondition, NotFound, NotReady
from serving.logs import get_logger

log = get_logger(__name__)
_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """How a writer publishes.

    Attributes:
        writer_address: Where readers send those who want to write.
        staging: A directory of the publisher's own, on the file system of the collections.
        writer_id: Whose the data directory is; who published to a store before may go on.
        takes_over: Whether to publish to it all the same when that was another.
        every_seconds: How often a head that was written to is published; 0 is only with a change of generations.
        num_kept: States whose files stay in the store, for readers that are still fetching an older one.
    """

    writer_address: str
    staging: Path
    writer_id: str
    takes_over: bool = False
    every_seconds: float = 0.0
    num_kept: int = 2


@dataclass(frozen=True, slots=True)
class _HeadState:
    """What tells one state of a head from the next."""

    directory: str
    sequence: int
    updated_at: str
    settings: CollectionSettings


class Publisher:
    """Publishes the collections of a library. For one event loop; one publisher for a store."""

    def __init__(
        self, library: Library, store: ObjectStore, options: PublishOptions, metrics: RetrieverMetrics
    ) -> None:
        """Prepares; `start` begins to publish."""
        self._library, self._store, self._options, self._metrics = library, store, options, metrics
        self._last: Publication | None = None
        self._heads: dict[str, _HeadState] = {}  # As last published.
        self._takes_over = options.takes_over  # Once.
        self._refusal: FailedPrecondition | None = None
        self._erases = True  # Until something is published: a purge may have been, before a crash.
        self._wake, self._publishing = asyncio.Event(), asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._erasing: set[asyncio.Task[None]] = set()  # Not to be lost while they run.

    async def start(self) -> None:
        """Publishes the present state, and from now on what changes.

        Raises:
            FailedPrecondition: When the store is another writer's.
        """
        try:
            await asyncio.to_thread(self._claim)
        except FailedPrecondition:
            raise
        except Exception as error:  # The store is away: what it says comes when it is back.
            log.warning("cannot ask whose the published place is", cause=first_line(error))
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="publish")

    async def close(self) -> None:
        """Stops; a publication under way is given up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def check(self) -> None:
        """Raises FailedPrecondition when another writer has taken over."""
        if self._refusal is not None:
            raise self._refusal

    def changed(self, *, erases: bool = False) -> None:
        """Says that generations have changed; where content was taken away, older states are not kept."""
        self._erases |= erases
        self._wake.set()

    async def erased(self) -> None:
        """Publishes a state from which content was purged; the store holds none of it when this returns.

        Raises:
            NotReady: When the store does not take it; it is tried again until it does.
        """
        self.changed(erases=True)
        publishing = asyncio.create_task(self.publish())  # To the end, when the caller leaves.
        self._erasing.add(publishing)
        publishing.add_done_callback(self._erasing.discard)
        try:
            await asyncio.shield(publishing)
        except Exception as error:
            self.check()
            raise NotReady(
                f"purged from this retriever, but not yet from what it publishes; it keeps trying: {first_line(error)}",
                reason="ERASURE_NOT_PUBLISHED",
            ) from error

    async def publish(self) -> None:
        """Brings the store to the present state."""
        async with self._publishing:
            erases, self._erases = self._erases, False
            try:
                await self._publish(erases=erases)
            except BaseException as error:
                self._erases |= erases
                if isinstance(error, FailedPrecondition) and error.reason == NOT_THE_WRITER:
                    self._refusal = error
                raise

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.every_seconds or None):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.publish()
            except Exception as error:  # E.g. the store is away: the former state stays valid.
                log.warning("cannot publish", cause=first_line(error))
                self._metrics.count_replication_failure("publish")
                if self._refusal is not None:
                    return
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _publish(self, *, erases: bool) -> None:
        await asyncio.to_thread(shutil.rmtree, self._options.staging, ignore_errors=True)
        claimed = await asyncio.to_thread(self._claim)
        if self._last is None:
            self._last = await asyncio.to_thread(_read_last, self._store)
        last, there = self._last, await asyncio.to_thread(self._store.names, OBJECTS)
        staging, address = self._options.staging / uuid.uuid4().hex, self._options.writer_address
        try:
            collections, heads = await self._collect(_present(last, there), staging)
            is_new = claimed.is_new or (last.collections, last.writer_address) != (collections, address)
            publication = Publication(last.number + 1, time.time(), address, collections) if is_new else last
            await asyncio.to_thread(_upload, self._store, publication, there, staging)
            if is_new:
                await asyncio.to_thread(write_publication, self._store, publication, claimed)
                self._takes_over = False
                log.info("published", number=publication.number, collections=len(collections))
            if is_new or erases:
                num_kept = 1 if erases else self._options.num_kept
                await asyncio.to_thread(_prune, self._store, publication, num_kept)
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        self._last, self._heads = publication, heads
        self._metrics.set_publication(publication.number, publication.published_at)

    def _claim(self) -> Claim:
        return claim(self._store, self._options.writer_id, takes_over=self._takes_over)

    async def _collect(
        self, last: Mapping[str, PublishedCollection], staging: Path
    ) -> tuple[dict[str, PublishedCollection], dict[str, _HeadState]]:
        """What there is to publish, with the files that may be missing in the store held in `staging`."""
        # A collection that could not be opened here is no reason to take it from readers that serve it.
        collections = {name: one for name, one in last.items() if self._library.has(name) and one.is_whole}
        heads = {}
        for name in filter(self._library.is_open, self._library.names()):
            with contextlib.suppress(NotFound):  # It is being dropped.
                async with self._library.using(name) as opened, local(opened, "replicas").changing:
                    collection = local(opened, "replicas")
                    state, before = await _head_state(collection), last.get(name)
                    is_changed = state != self._heads.get(name)
                    collections[name] = await _collect_one(collection, before, staging / name, is_changed=is_changed)
                    heads[name] = state
        return collections, heads


async def _head_state(collection: LiveCollection) -> _HeadState:
    async with collection.using_head() as head:
        read = await head.read(None, lambda reader: (reader.last_sequence(), reader.meta("updated_at", "")))
        return _HeadState(head.directory.name, *read, head.settings)


async def _collect_one(
    collection: LiveCollection, before: PublishedCollection | None, staging: Path, *, is_changed: bool
) -> PublishedCollection:
    """One collection; what `before` has of it is taken over where it still holds."""
    record, known = replace(collection.record, erasure=None), {} if before is None else before.files
    if record.successor is not None:
        record = record.without(record.successor)
    files: dict[str, Files] = {}
    for number in record.frozen:
        directory = record.directories[number]
        path = collection.generations.path(number)
        if directory in known:
            files[directory] = known[directory]
        else:
            files[directory] = await asyncio.to_thread(stage_snapshot, path, staging / directory)
    head = "" if before is None or is_changed else before.record.directories[before.record.head]
    if before is not None and head in known:
        sequence, digest, files[head] = before.sequence, before.digest, known[head]
    else:
        head, store = uuid.uuid4().hex, collection.head.directory / STORE_FILE
        manifest, files[head] = await asyncio.to_thread(stage_head, store, staging / head, record.head)
        sequence, digest = manifest.sequence, manifest.digest
    return PublishedCollection(record.placed(record.head, head), files, sequence, digest)


def _read_last(store: ObjectStore) -> Publication:
    """The newest publication; where it is damaged, one that holds nothing, so that everything is published again."""
    numbers = [int(name.removeprefix(STATES).partition("-")[0]) for name in store.names(STATES)]
    nothing = Publication(max(numbers, default=0), 0.0, "", {})
    try:
        pointer = read_pointer(store)
        return nothing if pointer is None else read_publication(store, pointer)
    except FailedPrecondition as error:
        if error.reason != DAMAGED:
            raise
        log.warning("the last publication is damaged", cause=error.message)
        return nothing


def _present(last: Publication, there: set[str]) -> dict[str, PublishedCollection]:
    """What was published, as far as the store still has it."""

    def files_of(one: PublishedCollection) -> dict[str, Files]:
        return {name: files for name, files in one.files.items() if {seal.name for seal in files.values()} <= there}

    return {name: replace(one, files=files_of(one)) for name, one in last.collections.items()}


def _upload(store: ObjectStore, publication: Publication, there: set[str], staging: Path) -> None:
    """Brings what the store lacks."""
    missing = {
        seal.name: staging / name / directory / path
        for name, one in publication.collections.items()
        for directory, files in one.files.items()
        for path, seal in files.items()
        if seal.name not in there
    }
    for name, path in missing.items():
        store.upload(name, path)


def _prune(store: ObjectStore, publication: Publication, num_kept: int) -> None:
    """Deletes what neither the newest publication nor one of the others to be kept needs."""
    pointer, states = read_pointer(store), store.names(STATES)
    if pointer is None or pointer.number != publication.number or pointer.writer_address != publication.writer_address:
        return  # Another writer's, since a moment ago: what it needs is not known here.
    # What is not below it was never pointed to: it was interrupted.
    former = sorted((name for name in states if name < pointer.state), reverse=True)[: num_kept - 1]
    needed = publication.objects()
    for name in former:
        with contextlib.suppress(FailedPrecondition):  # Damaged: nobody can fetch it.
            needed |= publication_from_json(store.read(name) or b"").objects()
    store.delete(states - {pointer.state, *former})
    store.delete(store.names(OBJECTS) - needed)
