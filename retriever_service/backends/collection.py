"""A collection that an engine holds, as requests use it: what `live_collection.LiveCollection` is for local ones.

Its head takes the writes, one generation is served, and each generation has an index of its own in the engine. Every
request works on one of them from beginning to end. The ledger is the truth about them: what another retriever changes
in it is known here after at most `FOLLOW_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from retriever_service.backends.generation import RemoteGeneration
from retriever_service.backends.ledger import Ledger, change_ledger, read_ledger
from retriever_service.backends.remote import Abilities, Moved, RemoteServer, RemoteStore
from retriever_service.backends.writer import RemoteWriter
from retriever_service.background import Background
from retriever_service.batch import Batch, Patch, Written
from retriever_service.collection import CollectionSettings
from retriever_service.filters import Condition, Filter
from retriever_service.live_collection import EncoderChanged
from retriever_service.users import Users
from serving.deadline import Deadline
from serving.errors import Overloaded

# How old a retriever's knowledge may be of what others write; `min_sequence` asks at once.
FOLLOW_SECONDS = 1.0
_HELD_SECONDS = 0.1
_MAX_ROUNDS = 300  # For as long as another retriever may hold writes back.

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemotePinned:
    """What a request works on, as `pinned.Pinned`."""

    index_generation: int
    generation: RemoteGeneration
    settings: CollectionSettings
    is_head: bool
    has_lexical: bool


class RemoteCollection:
    """One open collection. Its methods belong to the event loop."""

    def __init__(self, server: RemoteServer, ledger: Ledger, abilities: Abilities) -> None:
        """Opens the head, blocking; `start` brings searches up to date."""
        self.server, self.abilities, self.ledger = server, abilities, ledger
        self.opened = {ledger.head: self._open(ledger, ledger.head)}
        self._looked_at = -FOLLOW_SECONDS
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix=f"write-{ledger.settings.name}")
        self.gate = asyncio.Lock()  # Held by each write, and while another generation becomes the head.
        self.changing = asyncio.Lock()  # Held while generations come and go.
        self.successor_lock = asyncio.Lock()  # Held by each step that writes to the successor.
        self.reencoding = asyncio.Lock()  # Held while a re-encoded generation is being completed.
        self._opening = asyncio.Lock()
        self._background = Background()
        self.owner = uuid.uuid4().hex  # Of leases.
        self.follower: asyncio.Task[None] | None = None  # Brings a complete successor what is written to the head.
        self.keep_up: Callable[[], Awaitable[None]] | None = None  # Starts the follower.
        self.users = Users(ledger.settings.name)

    @property
    def head(self) -> RemoteGeneration:
        """The generation that takes the writes."""
        return self.opened[self.ledger.head]

    @property
    def settings(self) -> CollectionSettings:
        """The head's."""
        return self.ledger.settings

    @property
    def store(self) -> RemoteStore:
        """The head's."""
        return self.head.store

    async def start(self) -> None:
        """Makes searches see what is written."""
        await self.head.start()

    async def close(self) -> None:
        """Waits for those who use the collection."""
        await self.users.close()
        await self._background.finish()
        if self.follower is not None:
            self.follower.cancel()
            await asyncio.gather(self.follower, return_exceptions=True)
        await asyncio.to_thread(self._write_thread.shutdown)

    def in_use(self) -> AbstractAsyncContextManager[None]:
        """Keeps the collection open.

        Raises:
            NotFound: When it is being dropped.
        """
        return self.users.in_use()

    @asynccontextmanager
    async def serving(self, index_generation: int = 0) -> AsyncIterator[RemotePinned]:
        """The generation of this number, or the active one for 0, kept open meanwhile.

        Raises:
            NotFound: When there is none; the message names those there are.
        """
        is_unknown = index_generation not in (0, *self.ledger.numbers)
        if is_unknown or time.monotonic() - self._looked_at > FOLLOW_SECONDS:
            await self.follow()
        number = index_generation or self.ledger.active
        self.ledger.check_exists(number)
        generation = await self.generation(number)
        async with generation.users.in_use():
            yield RemotePinned(number, generation, generation.settings, generation.is_head, self.abilities.lexical)

    @asynccontextmanager
    async def using_head(self) -> AsyncIterator[RemoteGeneration]:
        """The generation that takes the writes."""
        yield self.head

    async def generation(self, number: int) -> RemoteGeneration:
        """A generation, opened when it is not yet."""
        async with self._opening:
            if number not in self.opened:
                generation = await asyncio.to_thread(self._open, self.ledger, number)
                await generation.start()
                self.opened[number] = generation
            return self.opened[number]

    async def follow(self) -> None:
        """Learns what others have changed, and makes searches see what they have written."""
        self._looked_at = time.monotonic()
        await self.look()
        for generation in list(self.opened.values()):
            if generation.is_behind:
                await asyncio.to_thread(generation.refresh)

    async def look(self) -> Ledger:
        """Learns what the ledger says now."""
        ledger = self.ledger.followed(await asyncio.to_thread(read_ledger, self.store))
        await self.learn(ledger)
        return self.ledger

    async def learn(self, ledger: Ledger) -> None:
        """Takes a ledger as the present one, unless it is older than what is known."""
        async with self._opening:
            if ledger.revision < self.ledger.revision:
                return
            if ledger.head not in self.opened:
                head = await asyncio.to_thread(self._open, ledger, ledger.head)
                await head.start()
                self.opened[ledger.head] = head
            gone = self.opened.keys() - {*ledger.numbers, ledger.followed_by}
            self.opened = {number: one for number, one in self.opened.items() if number not in gone}
            self.ledger = ledger
            for generation in self.opened.values():
                generation.learn(ledger)

    async def change(self, change: Callable[[Ledger], Ledger]) -> Ledger:
        """Changes the ledger and learns what it is then."""
        await self.learn(await asyncio.to_thread(change_ledger, self.store, change))
        return self.ledger

    @asynccontextmanager
    async def leasing(self, what: str) -> AsyncIterator[None]:
        """Keeps other retrievers from doing the same.

        Raises:
            FailedPrecondition: When another does.
        """
        await self.change(lambda ledger: ledger.leased(what, self.owner))
        try:
            yield
        finally:
            await self.change(lambda ledger: ledger.released(what, self.owner))

    async def read(self, threads: Executor | None, reading: Callable[[Any], T]) -> T:
        """Reads the head as it is now."""
        return await self.head.read(threads, reading)

    async def write(self, batch: Batch) -> Written:
        """Writes a batch; durable when it returns.

        Raises:
            EncoderChanged: When the head holds vectors of another encoder than the batch does.
        """
        return await self._change(lambda writer: writer.write(batch), batch.encoder_digest)

    async def delete(self, condition: Condition, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`; durable when it returns."""
        return await self._change(lambda writer: writer.delete(_filter_of(condition), sources))

    async def patch(self, condition: Condition, change: Patch) -> Written:
        """Changes the metadata of matching passages; durable when it returns."""
        return await self._change(lambda writer: writer.patch(_filter_of(condition), change))

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches of the head include the write of this number."""
        await self.head.wait_for(sequence, deadline)

    async def configure(self, change: Callable[[CollectionSettings], CollectionSettings]) -> None:
        """Changes the scoring of what is served, and of the head where it has the same encoder."""

        def apply(ledger: Ledger) -> Ledger:
            served = change(ledger.settings_of(ledger.active))
            if ledger.active in ledger.kept:
                kept = replace(ledger.kept[ledger.active], settings=served)
                ledger = replace(ledger, kept={**ledger.kept, ledger.active: kept})
            if ledger.settings.encoder.digest != served.encoder.digest:
                return ledger
            scored = replace(ledger.settings, temperature=served.temperature, fusion=served.fusion)
            return replace(ledger, settings=scored)

        await self.change(apply)

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that must not stop half-way; when the caller leaves, it goes on."""
        return await self._background.to_the_end(work)

    async def _change(self, change: Callable[[RemoteWriter], Written], encoder_digest: str = "") -> Written:
        return await self.to_the_end(self._write(change, encoder_digest))

    async def _write(self, change: Callable[[RemoteWriter], Written], encoder_digest: str) -> Written:
        async with self.gate:
            for _ in range(_MAX_ROUNDS):
                ledger = self.ledger if self.abilities.has_one_writer else await self.look()
                head = self.head
                if ledger.is_held:
                    await self._release_abandoned()
                    continue
                if encoder_digest not in ("", head.settings.encoder.digest):
                    raise EncoderChanged("the collection was re-encoded meanwhile")
                head.writer.ledger = ledger
                try:
                    written = await asyncio.get_running_loop().run_in_executor(self._write_thread, change, head.writer)
                except Moved:
                    await self.look()
                    continue
                await self.learn(replace(self.ledger, sequence=max(written.sequence, self.ledger.sequence)))
                if self.keep_up is not None and self.follower is None:
                    await self.keep_up()
                return written
        raise Overloaded("another retriever holds writes back", reason="CONTENTION", retry_after_seconds=1.0)

    async def _release_abandoned(self) -> None:
        """Waits; lets writes go on that a retriever held back which is no more."""
        await asyncio.sleep(_HELD_SECONDS)
        if not self.ledger.is_leased("generations"):
            await asyncio.to_thread(self.server.thaw, self.settings.name, self.head.number)
            await self.change(lambda ledger: replace(ledger, is_held=ledger.is_leased("generations")))

    def _open(self, ledger: Ledger, number: int) -> RemoteGeneration:
        store = self.server.open(ledger.settings_of(number), number)
        return RemoteGeneration(number, store, self.abilities, ledger)


def _filter_of(condition: Condition) -> Filter:
    """The filter of a condition that selects: one that is SQL alone must not come to mean everything."""
    assert condition.matching is not None, condition.sql
    return condition.matching
