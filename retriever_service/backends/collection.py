"""A collection that an engine holds, as requests use it: what `live_collection.LiveCollection` is for local ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from retriever_service.backends.head import Head, change_head, read_head
from retriever_service.backends.reader import RemoteReader
from retriever_service.backends.remote import Abilities, RemoteStore, refuse
from retriever_service.backends.stages import LexicalStages, RemoteStages, matching_of
from retriever_service.backends.words import telling_words
from retriever_service.backends.writer import RemoteWriter
from retriever_service.batch import Batch, Patch, Written
from retriever_service.collection import CollectionSettings, LexicalScoring
from retriever_service.filters import Condition, Filter
from retriever_service.generation import Applied
from retriever_service.lexical_index import LexicalIndex
from retriever_service.purging import Purged
from retriever_service.search import Found, Mode, Plan, Search, SearchQuery
from retriever_service.selection import Selection
from retriever_service.store import Reader
from retriever_service.transaction import index_digest
from retriever_service.users import Users
from serving.deadline import Deadline
from serving.errors import Deadline as DeadlineExceeded
from serving.errors import FailedPrecondition, NotFound

# How old a retriever's knowledge may be of what others write; `min_sequence` asks at once.
FOLLOW_SECONDS = 1.0
INDEX_GENERATION = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteIndex:
    """What is known of an index that an engine keeps. Its size there is not."""

    kind: str
    measured_recall: float
    num_vectors: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RemotePinned:
    """What a request works on, as `pinned.Pinned`."""

    index_generation: int
    generation: RemoteCollection
    settings: CollectionSettings
    has_lexical: bool
    is_head: bool = True


class RemoteCollection:
    """One open collection, and its one generation. Its methods belong to the event loop."""

    def __init__(self, store: RemoteStore, head: Head, abilities: Abilities) -> None:
        """Takes what the engine holds; `start` brings searches up to date."""
        self.store, self.abilities = store, abilities
        self._head = self._refreshed = head  # As last read; and what searches see.
        self._looked_at = -FOLLOW_SECONDS
        self._writer = RemoteWriter(store, self._refresh)
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix=f"write-{head.settings.name}")
        self.users = Users(head.settings.name)
        recall = 1.0 if abilities.is_exact else float("nan")  # The engine's own: nobody has measured it here.
        self.dense = RemoteIndex(abilities.kind, recall)

    @property
    def settings(self) -> CollectionSettings:
        """The collection's."""
        return self._head.settings

    @property
    def lexical(self) -> RemoteIndex:
        """The engine has both."""
        return self.dense

    @property
    def committed_sequence(self) -> int:
        """Of the last write that is known."""
        return self._head.sequence

    @property
    def applied(self) -> Applied:
        """The state that searches are certain to include."""
        reader = RemoteReader(self.store, self.settings.encoder.dim, head=self._refreshed)
        return Applied(self._refreshed.sequence, index_digest(reader, self.settings.encoder.digest))

    async def start(self) -> None:
        """Makes searches see what is written."""
        await asyncio.to_thread(self._refresh)
        num_vectors = await asyncio.to_thread(self.store.count, None)
        self.dense = replace(self.dense, num_vectors=num_vectors)

    async def close(self) -> None:
        """Waits for those who use the collection."""
        await self.users.close()
        await asyncio.to_thread(self._write_thread.shutdown)

    def in_use(self) -> AbstractAsyncContextManager[None]:
        """Keeps the collection open.

        Raises:
            NotFound: When it is being dropped.
        """
        return self.users.in_use()

    @asynccontextmanager
    async def serving(self, index_generation: int = 0) -> AsyncIterator[RemotePinned]:
        """What requests search.

        Raises:
            NotFound: When another generation is asked for.
        """
        if index_generation not in (0, INDEX_GENERATION):
            raise NotFound(
                f"collection {self.settings.name!r} has no index generation {index_generation}; in "
                f"{self.abilities.kind} there is {INDEX_GENERATION} alone",
                reason="INDEX_GENERATION_NOT_FOUND",
            )
        if time.monotonic() - self._looked_at > FOLLOW_SECONDS:
            await self.follow()
        yield RemotePinned(INDEX_GENERATION, self, self.settings, self.abilities.lexical)

    @asynccontextmanager
    async def using_head(self) -> AsyncIterator[RemoteCollection]:
        """Itself: it takes the writes."""
        yield self

    async def follow(self) -> None:
        """Learns what others have written, and makes searches see it."""
        self._looked_at = time.monotonic()

        def run() -> None:
            head = read_head(self.store)
            if head.store_id != self._head.store_id:
                raise FailedPrecondition(
                    f"collection {self.settings.name!r} was made anew by another retriever: restart this one",
                    reason="COLLECTION_REPLACED",
                )
            if head.sequence != self._refreshed.sequence:
                self._refresh()
            self._learn(head)

        await asyncio.to_thread(run)

    async def search(self, threads: Executor, queries: Sequence[SearchQuery], plan: Plan) -> Found:
        """Finds the passages for each query.

        Raises:
            Unimplemented: When the lexical stage is asked for and the engine has none.
        """
        if not self.abilities.lexical and any(query.mode is not Mode.DENSE for query in queries):
            raise refuse(self.abilities.kind, "lexical stage", "ask in dense mode, or use Milvus 2.5 or newer")
        language = self.settings.language
        telling = [replace(query, text=telling_words(query.text, language)) for query in queries]

        def run() -> Found:
            reader = RemoteReader(self.store, self.settings.encoder.dim, matching=matching_of(plan))
            stages = RemoteStages(self.store, reader, telling, plan)
            # The engine has filtered, and scores as the collection says.
            done = replace(plan, condition=None, lexical_scoring=LexicalScoring.BM25)
            # Without a condition, a search asks of its reader and its indexes only what these have.
            search = Search(cast(Reader, reader), stages, cast(LexicalIndex, LexicalStages(stages)), done)
            return search.run(telling)

        return await asyncio.get_running_loop().run_in_executor(threads, run)

    async def read(self, threads: Executor | None, reading: Callable[[Any], T]) -> T:
        """Reads the collection as it is now."""
        reader = RemoteReader(self.store, self.settings.encoder.dim, see=self._see)
        return await asyncio.get_running_loop().run_in_executor(threads, reading, reader)

    async def write(self, batch: Batch) -> Written:
        """Writes a batch; durable when it returns."""
        return await self._change(lambda: self._writer.write(batch))

    async def delete(self, condition: Condition, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`; durable when it returns."""
        return await self._change(lambda: self._writer.delete(_filter_of(condition), sources))

    async def patch(self, condition: Condition, change: Patch) -> Written:
        """Changes the metadata of matching passages; durable when it returns."""
        return await self._change(lambda: self._writer.patch(_filter_of(condition), change))

    async def purge(self, selection: Selection) -> Purged:
        """Deletes, and has the engine take what is deleted out of its files."""
        condition = selection.condition(self.settings.filterable_fields)
        written = await self.delete(condition, selection.sources)
        await asyncio.to_thread(self.store.expunge)
        return Purged(written.num_deleted, written.sequence, (INDEX_GENERATION,))

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches include the write of this number.

        Raises:
            FailedPrecondition: When there was no such write.
            Deadline: When the engine does not refresh in time.
        """
        if self._refreshed.sequence >= sequence:
            return
        try:
            async with asyncio.timeout(deadline.timeout()):
                await self.follow()
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.abilities.kind} has not refreshed in time") from error
        if self._refreshed.sequence < sequence:
            raise FailedPrecondition(
                f"min_sequence {sequence} lies beyond the last change of collection {self.settings.name!r}, "
                f"{self._refreshed.sequence}",
                reason="SEQUENCE_NOT_WRITTEN",
            )

    async def configure(self, change: Callable[[CollectionSettings], CollectionSettings]) -> None:
        """Changes the scoring."""

        def run() -> Head:
            return change_head(self.store, lambda head: replace(head, settings=change(head.settings)))

        self._head = await asyncio.to_thread(run)

    async def _change(self, change: Callable[[], Written]) -> Written:
        written = await asyncio.get_running_loop().run_in_executor(self._write_thread, change)
        self._learn(replace(self._head, sequence=written.sequence))
        return written

    def _learn(self, head: Head) -> None:
        """Takes a head as the present one, unless it is older than what is known."""
        if head.sequence >= self._head.sequence:
            self._head = head

    def _see(self) -> None:
        if self._writer.has_unrefreshed:
            self._refresh()

    def _refresh(self) -> None:
        """Makes searches see every write that has returned. For threads."""
        head = read_head(self.store)
        with self._writer.refreshing():
            self.store.refresh()
        if head.sequence > self._refreshed.sequence:  # Another thread's refresh may have overtaken this one.
            self._refreshed = head


def _filter_of(condition: Condition) -> Filter:
    """The filter of a condition that selects: one that is SQL alone must not come to mean everything."""
    assert condition.matching is not None, condition.sql
    return condition.matching
