"""One open index generation: store, dense and lexical index, searched as one consistent state.

A frozen one never changes. A live one follows its store's change log: a write is acknowledged when the store has it,
then applied to the indexes; the same application replays the log at start-up, so that a process killed at any moment
loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from retriever_service.collection import CollectionSettings
from retriever_service.dense.sharing import SharedRuns, SharedSearch
from retriever_service.dense_index import MakeDenseIndex
from retriever_service.generations import DENSE_DIRECTORY, LEXICAL_DIRECTORY, STORE_FILE
from retriever_service.lexical_index import LexicalIndex
from retriever_service.search import Found, Mode, Plan, Search, SearchQuery
from retriever_service.store import Reader, Store
from retriever_service.stored_settings import settings_from_json
from retriever_service.transaction import index_digest
from retriever_service.users import Users
from serving.deadline import Deadline
from serving.errors import Deadline as DeadlineExceeded
from serving.errors import FailedPrecondition
from serving.logs import get_logger

_CHANGES_PER_STEP = 4_096
_RETRY_SECONDS = 1.0

T = TypeVar("T")
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """The state that searches are certain to include."""

    sequence: int
    index_digest: str


class Generation:
    """Open files and indexes. Its methods belong to the event loop; blocking work goes to threads."""

    def __init__(self, directory: Path, make_dense_index: MakeDenseIndex, *, is_frozen: bool = False) -> None:
        """Opens the files, blocking; `start` brings the indexes up to date.

        Args:
            directory: Holds the store; the indexes are kept beside it.
            make_dense_index: The dense index of a generation.
            is_frozen: Whether nobody writes to it any more.
        """
        self.directory, self.is_frozen = directory, is_frozen
        self.store = Store(directory / STORE_FILE, is_frozen=is_frozen)
        with self.store.reading() as reader:
            self.settings: CollectionSettings = settings_from_json(reader.meta("settings"))
            store_id = reader.meta("store_id")
        self.dense = make_dense_index(directory / DENSE_DIRECTORY, self.settings, self.store.scanning)
        self._shared = SharedSearch(self.dense, self.settings.name)
        self._runs = SharedRuns(self._run_search, self.settings.name)
        self.lexical = LexicalIndex(directory / LEXICAL_DIRECTORY, self.settings.language, store_id)
        self._apply_thread = ThreadPoolExecutor(1, thread_name_prefix=f"apply-{self.settings.name}")
        self._wake, self._changed = asyncio.Event(), asyncio.Condition()
        self._applier: asyncio.Task[None] | None = None
        self.users = Users(self.settings.name)  # Requests that work on it now.
        self.applied = Applied(0, "")
        self.committed_sequence = 0  # Of the last write acknowledged since the generation was opened.

    async def start(self) -> None:
        """Builds the dense index, replays the log into the lexical one, and follows the log if it is live."""
        self.applied = await self._run(self._apply_thread, self._load)
        await self._shared.start()
        await self._runs.start()
        if not self.is_frozen:
            self._applier = asyncio.create_task(self._apply_forever(), name=f"apply-{self.settings.name}")

    async def close(self) -> None:
        """Waits for those who use the generation, then closes its files."""
        await self.users.close()
        if self._applier is not None:
            self._applier.cancel()
            await asyncio.gather(self._applier, return_exceptions=True)
        await self._runs.stop()
        await self._shared.stop()
        await asyncio.to_thread(self.dense.close)
        await asyncio.to_thread(self._apply_thread.shutdown)
        await asyncio.to_thread(self.lexical.close)
        self.store.close()

    def in_use(self) -> AbstractAsyncContextManager[None]:
        """Keeps the generation open.

        Raises:
            NotFound: When it is closing.
        """
        return self.users.in_use()

    async def search(self, threads: Executor, queries: Sequence[SearchQuery], plan: Plan) -> Found:
        """Finds the passages for each query."""
        vectors = [query.vector for query in queries if query.vector is not None]
        if not vectors or plan.condition is not None:  # With a filter, it depends on what the store says.
            return await self.read(threads, lambda reader: Search(reader, self.dense, self.lexical, plan).run(queries))
        if self._shared.is_used and all(query.mode is Mode.DENSE for query in queries):  # Lexical stages run abreast.
            with self._shared.in_use():
                return await self._runs.run(queries, plan)
        async with self._shared.searched(np.stack(vectors), plan.num_candidates) as dense:
            return await self.read(threads, lambda reader: Search(reader, dense, self.lexical, plan).run(queries))

    def _run_search(self, queries: Sequence[SearchQuery], plan: Plan) -> Found:
        with self.store.reading() as reader:
            return Search(reader, self.dense, self.lexical, plan).run(queries)

    async def read(self, threads: Executor | None, reading: Callable[[Reader], T]) -> T:
        """Reads one state of the store in a thread (of the loop's own where none are given)."""

        def work() -> T:
            with self.store.reading() as reader:
                return reading(reader)

        return await self._run(threads, work)

    def scanning(self) -> AbstractContextManager[Reader]:
        """A reader of one state for a long read, in any thread."""
        return self.store.scanning()

    async def warm(self) -> None:
        """Runs one search of each index, so that the first request finds them loaded."""
        query = np.full((1, self.settings.encoder.dim), self.settings.encoder.dim**-0.5, np.float32)

        def search() -> None:
            self.dense.search(query, 1)
            self.lexical.search("warm up", 1)

        await self._run(None, search)

    def wake(self) -> None:
        """Says that the store has changed."""
        self._wake.set()

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches include the change of this number.

        Raises:
            FailedPrecondition: When no such change was made here.
            Deadline: When it was, but the indexes do not hold it in time.
        """
        if self.applied.sequence >= sequence:
            return
        last = await self.read(None, Reader.last_sequence)
        if sequence > last and self.is_frozen:
            raise FailedPrecondition(
                f"min_sequence {sequence} lies beyond change {last}, at which this index generation of collection "
                f"{self.settings.name!r} was frozen: ask the one that takes the writes, or activate it",
                reason="SEQUENCE_NOT_IN_GENERATION",
            )
        if sequence > last:
            raise FailedPrecondition(
                f"min_sequence {sequence} lies beyond the last change of collection {self.settings.name!r}, {last}",
                reason="SEQUENCE_NOT_WRITTEN",
            )
        self._wake.set()
        try:
            async with asyncio.timeout(deadline.timeout()), self._changed:
                await self._changed.wait_for(lambda: self.applied.sequence >= sequence)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the indexes do not hold change {sequence} yet") from error

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
            self.dense.load(reader)
            fill_lexical(self.lexical, reader)
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

    async def _run(self, threads: Executor | None, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


def fill_lexical(lexical: LexicalIndex, reader: Reader) -> None:
    """Brings a lexical index that holds nothing, or more than the store, to the store's state."""
    last = reader.last_sequence()
    if lexical.applied_sequence is not None and lexical.applied_sequence <= last:
        return
    lexical.clear()
    for texts in reader.scan_texts():
        lexical.add(texts)
    lexical.commit(last)
