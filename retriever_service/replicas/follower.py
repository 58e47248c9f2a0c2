"""The reader's side: looks for a new publication, fetches what is missing, and swaps each collection as a whole.

What was fetched is on disk: after a restart it is served at once, whether the store answers or not.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from retriever_service.library import Library
from retriever_service.metrics import RetrieverMetrics
from retriever_service.replicas.fetching import Fetcher
from retriever_service.replicas.followed import FollowedCollection
from retriever_service.replicas.object_store import ObjectStore, first_line
from retriever_service.replicas.published import (
    DAMAGED,
    Pointer,
    Publication,
    PublishedCollection,
    publication_from_json,
    read_pointer,
    read_publication,
)
from serving.durable import replacing
from serving.errors import FailedPrecondition, NotReady, RagError
from serving.logs import get_logger

log = get_logger(__name__)
REPLICA_FILE = "replica.json"


@dataclass(frozen=True, slots=True)
class Replica:
    """What a reader serves: a publication, and when it last was the newest (Unix time in seconds, by this clock)."""

    sha256: str
    publication: Publication
    newest_at: float


class Follower:
    """Keeps the collections of a library at what a writer publishes. For one event loop."""

    def __init__(
        self, library: Library, store: ObjectStore, data_dir: Path, interval_seconds: float, metrics: RetrieverMetrics
    ) -> None:
        """Prepares; `start` begins to follow.

        Args:
            library: Of `FollowedCollection`s; nobody else changes it.
            store: Where the writer publishes.
            data_dir: The library's.
            interval_seconds: Between two looks.
            metrics: Told how far this replica is.
        """
        self._library, self._store, self._interval_seconds = library, store, interval_seconds
        self._fetcher, self._file, self._metrics = Fetcher(store, data_dir), data_dir / REPLICA_FILE, metrics
        self._replica: Replica | None = None
        self._writer_address, self._following = "", asyncio.Lock()
        self._told = ""  # Of what went wrong, so that it is logged once.
        self._task: asyncio.Task[None] | None = None

    @property
    def writer_address(self) -> str:
        """Where writes go, as the writer said last."""
        return self._writer_address

    @property
    def lag_seconds(self) -> float:
        """How long ago what is served was certainly the newest publication: nothing older than that is missing."""
        return 0.0 if self._replica is None else max(0.0, time.time() - self._replica.newest_at)

    async def start(self) -> None:
        """Returns when there is something to serve: what was fetched before, or a first publication; then follows.

        Raises:
            FailedPrecondition: When the data directory is not a replica's.
        """
        if not self._file.exists():
            if names := self._library.names():
                raise FailedPrecondition(
                    f"{self._file.parent} holds collections of its own ({names[0]}): a replica would replace them",
                    reason="NOT_A_REPLICA",
                )
            await asyncio.to_thread(_write_replica, self._file, None)
        self._replica = await asyncio.to_thread(_read_replica, self._file)
        if self._replica is not None:
            self._writer_address = self._replica.publication.writer_address
        self._metrics.set_replication_lag(lambda: self.lag_seconds)
        while self._replica is None:
            await self._look()
            if self._replica is None:
                await asyncio.sleep(self._interval_seconds)
        self._metrics.set_publication(self._replica.publication.number, self._replica.publication.published_at)
        self._task = asyncio.create_task(self._run(), name="follow")

    async def close(self) -> None:
        """Stops following; what was fetched stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def follow(self) -> None:
        """Looks once, and serves what is new.

        Raises:
            NotReady: When nothing is published yet.
            FailedPrecondition: When something of it is damaged; what is whole is served.
        """
        async with self._following:
            await self._follow()

    async def _follow(self) -> None:
        looked_at = time.time()
        pointer = await asyncio.to_thread(read_pointer, self._store)
        if pointer is None:
            raise NotReady("nothing is published yet", reason="NOTHING_PUBLISHED")
        replica = self._replica
        if replica is not None and pointer.sha256 == replica.sha256 and self._serves(replica.publication):
            self._replica = replace(replica, newest_at=looked_at)
        else:
            await self._adopt(pointer, looked_at)

    async def reach(self, name: str, index_generation: int, sequence: int) -> None:
        """Waits while a collection lacks a change that may still come; see `FollowedCollection.reach`."""
        async with self._library.using(name) as collection:
            assert isinstance(collection, FollowedCollection)
            await collection.reach(index_generation, sequence)

    async def _run(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._interval_seconds)

    async def _look(self) -> None:
        try:
            await self.follow()
            self._told = ""
        except Exception as error:  # E.g. the store is away, or deletes what is being fetched: the next look tells.
            self._metrics.count_replication_failure("follow")
            if (cause := first_line(error)) != self._told:
                log.warning("cannot follow the writer", cause=cause)
            self._told = cause

    async def _adopt(self, pointer: Pointer, looked_at: float) -> None:
        publication = await asyncio.to_thread(read_publication, self._store, pointer)
        self._writer_address = publication.writer_address
        await asyncio.to_thread(self._fetcher.clear, publication)
        present = {} if self._replica is None else self._fetcher.present(self._replica.publication)
        failed: dict[str, Exception] = {}
        for name, published in publication.collections.items():
            try:
                if self._library.has(name) and not self._library.is_open(name):
                    await self._library.drop(name)  # Damaged here.
                await asyncio.to_thread(self._fetcher.fetch, name, published, present)
                await self._serve(name, published)
            except Exception as error:  # One that is damaged hinders no other.
                failed[name] = error
        for name in self._library.names():
            if name not in publication.collections:
                await self._library.drop(name)
        if failed:
            names, first = ", ".join(failed), next(iter(failed.values()))
            message = f"publication {publication.number} cannot be served for {names}: {first!r}"
            raise FailedPrecondition(message, reason=DAMAGED) from first
        self._replica = Replica(pointer.sha256, publication, looked_at)
        await asyncio.to_thread(_write_replica, self._file, self._replica)
        self._metrics.set_publication(publication.number, publication.published_at)
        log.info("following", number=publication.number, collections=len(publication.collections))

    def _serves(self, publication: Publication) -> bool:
        return all(self._library.is_open(name) for name in publication.collections)

    async def _serve(self, name: str, published: PublishedCollection) -> None:
        async with self._library.using(name) as collection:
            assert isinstance(collection, FollowedCollection)
            if collection.record != published.record:
                await collection.adopt(published.record)
        await self._library.measure(name)


def _read_replica(path: Path) -> Replica | None:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given["publication"] is None:
            return None
        publication = publication_from_json(json.dumps(given["publication"]).encode())
        return Replica(given["sha256"], publication, given["newest_at"])
    except (OSError, ValueError, KeyError, TypeError, RagError):  # Fetched anew, but for the files that are there.
        return None


def _write_replica(path: Path, replica: Replica | None) -> None:
    given: dict[str, object] = {"publication": None}
    if replica is not None:
        publication = json.loads(replica.publication.to_json())
        given = {"sha256": replica.sha256, "newest_at": replica.newest_at, "publication": publication}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(given), encoding="utf-8")
