"""A collection that changes while it is searched: store, indexes, and the one task that brings the indexes up to date.

Write path: one transaction (passages and change log) → commit, fsync → acknowledge → apply the log to the indexes. The
same application replays the log at start-up, so a process killed at any moment loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from retriever_service.collection import CollectionSettings
from retriever_service.dense_index import DenseIndex
from retriever_service.filters import Condition
from retriever_service.lexical_index import LexicalIndex
from retriever_service.search import Found, Plan, Search, SearchQuery
from retriever_service.store import Reader, Store
from retriever_service.writing import Batch, Writer, Written, index_digest
from serving.deadline import Deadline
from serving.errors import Deadline as DeadlineExceeded
from serving.errors import FailedPrecondition, NotFound
from serving.logs import get_logger

STORE_FILE, LEXICAL_DIRECTORY = "store.sqlite", "lexical"
_CHANGES_PER_STEP = 4_096
_RETRY_SECONDS = 1.0

T = TypeVar("T")
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """The state that searches are certain to include."""

    sequence: int
    index_digest: str


class LiveCollection:
    """One open collection. Its methods belong to the event loop; blocking work goes to its threads."""

    index_generation = 1  # Of the live state; snapshots number from here on.

    def __init__(self, directory: Path, settings: CollectionSettings, store: Store, dense: DenseIndex) -> None:
        """Takes the parts; `start` brings the indexes up to date."""
        self.directory, self.settings, self.store, self.dense = directory, settings, store, dense
        with store.reading() as reader:
            store_id = reader.meta("store_id")
        self.lexical = LexicalIndex(directory / LEXICAL_DIRECTORY, settings.language, store_id)
        self._writer = Writer(store, settings.filterable_fields)
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix=f"write-{settings.name}")
        self._apply_thread = ThreadPoolExecutor(1, thread_name_prefix=f"apply-{settings.name}")
        self._wake, self._changed = asyncio.Event(), asyncio.Condition()
        self._applier: asyncio.Task[None] | None = None
        self._num_users, self._is_closing = 0, False
        self.applied = Applied(0, "")

    async def start(self) -> None:
        """Builds the dense index, replays the log into the lexical one, and keeps both up to date from then on."""
        self.applied = await self._run(self._apply_thread, self._load)
        self._applier = asyncio.create_task(self._apply_forever(), name=f"apply-{self.settings.name}")

    async def close(self) -> None:
        """Waits for those who use the collection, then closes its files."""
        self._is_closing = True
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._num_users == 0)
        if self._applier is not None:
            self._applier.cancel()
            await asyncio.gather(self._applier, return_exceptions=True)
        for thread in (self._write_thread, self._apply_thread):
            await asyncio.to_thread(thread.shutdown)
        await asyncio.to_thread(self.lexical.close)
        self.store.close()

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Keeps the collection open.

        Raises:
            NotFound: When it is being dropped.
        """
        if self._is_closing:
            raise NotFound(f"collection {self.settings.name!r} is being dropped", reason="COLLECTION_NOT_FOUND")
        self._num_users += 1
        try:
            yield
        finally:
            self._num_users -= 1
            if self._is_closing:
                async with self._changed:
                    self._changed.notify_all()

    async def search(self, threads: Executor, queries: Sequence[SearchQuery], plan: Plan) -> Found:
        """Finds the passages for each query."""
        return await self.read(threads, lambda reader: Search(reader, self.dense, self.lexical, plan).run(queries))

    async def read(self, threads: Executor, reading: Callable[[Reader], T]) -> T:
        """Reads one state of the store in a thread."""

        def work() -> T:
            with self.store.reading() as reader:
                return reading(reader)

        return await self._run(threads, work)

    async def write(self, batch: Batch) -> Written:
        """Commits a batch; durable when it returns."""
        return await self._change(lambda: self._writer.write(batch))

    async def delete(self, condition: Condition, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`; durable when it returns."""
        return await self._change(lambda: self._writer.delete(condition, sources))

    async def configure(self, settings: CollectionSettings, settings_json: str) -> None:
        """Replaces the scoring part of the settings."""
        await self._run(self._write_thread, lambda: self._writer.set_meta({"settings": settings_json}))
        self.settings = settings

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches include the change of this number.

        Raises:
            FailedPrecondition: When no such change was made.
            Deadline: When it was, but the indexes do not hold it in time.
        """
        if self.applied.sequence >= sequence:
            return
        last = await self._run(self._write_thread, self._last_sequence)
        if sequence > last:
            raise FailedPrecondition(
                f"min_sequence {sequence} lies beyond the last change of collection {self.settings.name!r}, {last}",
                reason="SEQUENCE_NOT_WRITTEN",
            )
        self._wake.set()
        try:
            async with asyncio.timeout(deadline.timeout()), self._changed:
                await self._changed.wait_for(lambda: self.applied.sequence >= sequence or self._is_closing)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the indexes do not hold change {sequence} yet") from error

    async def _change(self, change: Callable[[], Written]) -> Written:
        written = await self._run(self._write_thread, change)
        self._wake.set()
        return written

    async def _apply_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                self.applied = await self._run(self._apply_thread, self._apply)
            except Exception:  # E.g. a full disk: what is acknowledged is in the store, so trying again is safe.
                log.exception("indexes cannot be brought up to date", collection=self.settings.name)
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()
                continue
            async with self._changed:
                self._changed.notify_all()

    def _load(self) -> Applied:
        with self.store.reading() as reader:
            for rows, vectors in reader.scan_vectors():
                self.dense.add(rows, vectors)
            last = reader.last_sequence()
            if self.lexical.applied_sequence is None or self.lexical.applied_sequence > last:
                self.lexical.clear()
                for texts in reader.scan_texts():
                    self.lexical.add(texts)
                self.lexical.commit(last)
        return self._apply()

    def _apply(self) -> Applied:
        """Applies the log from where the lexical index stands to its end. Idempotent."""
        after = self.lexical.applied_sequence or 0
        with self.store.reading() as reader:
            while changes := reader.changes(after, _CHANGES_PER_STEP):
                added = [change.row for change in changes if change.operation == "added"]
                removed = [change.row for change in changes if change.operation == "removed"]
                self.dense.add(*reader.vectors(np.array(added, np.int64)))
                self.dense.remove(removed)
                self.lexical.add(reader.texts(added))
                self.lexical.remove(removed)
                after = changes[-1].sequence
            if after != self.lexical.applied_sequence:
                self.lexical.commit(after)
            return Applied(after, index_digest(reader, self.settings.encoder.digest))

    def _last_sequence(self) -> int:
        with self.store.reading() as reader:
            return reader.last_sequence()

    async def _run(self, threads: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
