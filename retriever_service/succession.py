"""Another store takes the head's place while writes go on: after a purge, or with another encoder's vectors.

It is brought to the head's state beside it; only the last step holds writes back, for as long as the rest takes.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from retriever_service import replication
from retriever_service.encoder import Encoder, PassageText
from retriever_service.encoding import Encoding
from retriever_service.generation import Generation
from retriever_service.generations import STORE_FILE, Record
from retriever_service.live_collection import LiveCollection
from retriever_service.passage_vectors import embed_passages
from retriever_service.store import Reader
from serving.deadline import Deadline
from serving.logs import get_logger

BATCH_SIZE = 256  # Passages encoded per durable step.
_MAX_ROUNDS = 3  # Of catching up with writes that keep coming; each has less to do than the one before.
_RETRY_SECONDS = 1.0

log = get_logger(__name__)


class Successor:
    """Brings a re-encoded generation to the head's state, step by step; each step is durable and none is repeated."""

    def __init__(self, collection: LiveCollection, encoding: Encoding, encoder: Encoder) -> None:
        """Prepares to work on the collection's successor.

        Args:
            collection: Has a successor.
            encoding: Runs the encoder, queries first.
            encoder: Whose vectors the successor holds.
        """
        self._collection, self._encoding, self._encoder = collection, encoding, encoder
        self._number = collection.record.successor
        self._last_row = 0  # Every row up to here has its vector.

    async def encode_next(self) -> int:
        """Encodes the next passages that have no vector yet; returns how many, 0 when there are none."""
        return await self._collection.to_the_end(self._encode_next())

    async def catch_up(self) -> bool:
        """Brings the successor to a state that the head had when this was called, or a later one.

        Returns:
            Whether it is there. Where writes keep coming it may not be; holding the gate it always is.
        """
        for _ in range(_MAX_ROUNDS):
            while await self.encode_next() == BATCH_SIZE:
                pass
            if await self._collection.to_the_end(self._replicate()):
                return True
        return False

    async def _encode_next(self) -> int:
        collection = self._collection
        async with collection.successor_lock, collection.using_head() as head:
            store, source = self._store(), head.store.path
            found = await asyncio.to_thread(replication.lacking, store, source, self._last_row, BATCH_SIZE)
            if found:
                texts = [PassageText(text, title) for _, title, text in found]
                vectors = await embed_passages(self._encoding, self._encoder, texts, collection.settings)
                await asyncio.to_thread(replication.add_vectors, store, [row for row, *_ in found], vectors)
                self._last_row = found[-1][0]
            return len(found)

    async def _replicate(self) -> bool:
        async with self._collection.successor_lock, self._collection.using_head() as head:
            store, source = self._store(), head.store.path
            return await asyncio.to_thread(replication.replicate, store, source, with_vectors=False)

    async def follow(self) -> None:
        """Brings the successor what is written to the head, until cancelled."""
        collection = self._collection
        while True:
            await collection.written.wait()
            collection.written.clear()
            try:
                if not await self.catch_up():
                    async with collection.gate:
                        await self.catch_up()
                assert collection.record.successor is not None
                async with collection.serving(collection.record.successor) as pinned:
                    pinned.generation.wake()
            except Exception:  # What was written is safe in the head, so trying again is.
                log.exception("re-encoded generation cannot follow", collection=collection.settings.name)
                await asyncio.sleep(_RETRY_SECONDS)
                collection.written.set()

    def _store(self) -> Path:
        assert self._number is not None
        return self._collection.generations.path(self._number) / STORE_FILE


async def successor_of(collection: LiveCollection, encoding: Encoding) -> Successor:
    """The successor of a collection that has a complete one, with its encoder loaded."""
    assert collection.record.successor is not None
    async with collection.serving(collection.record.successor) as pinned:
        settings = pinned.settings
    encoder = await encoding.encoder_of(
        settings.encoder, collection=settings.name, follows_server=settings.follows_server_encoder
    )
    return Successor(collection, encoding, encoder)


async def start_following(collection: LiveCollection, encoding: Encoding) -> None:
    """Opens a complete successor and keeps it at the head's state from now on."""
    successor = await successor_of(collection, encoding)
    await stop_following(collection)
    collection.written.set()
    collection.follower = asyncio.create_task(successor.follow(), context=contextvars.Context())


async def stop_following(collection: LiveCollection) -> None:
    """Ends what `start_following` began."""
    if collection.follower is not None:
        collection.follower.cancel()
        await asyncio.gather(collection.follower, return_exceptions=True)
        collection.follower = None


async def take_over(collection: LiveCollection, encoding: Encoding) -> None:
    """Makes the complete successor the head and the active generation. Holding `changing`."""
    record = collection.record
    number = record.successor
    assert number is not None
    successor = await successor_of(collection, encoding)
    await stop_following(collection)
    generation = await collection.open(number)
    await generation.warm()
    changed = replace(record, head=number, active=number, successor=None, is_successor_complete=False)
    await _replace_head(collection, generation, changed, successor.catch_up)


async def renew_head(collection: LiveCollection) -> None:
    """Writes the head's live content into new files, which take the place of the old ones. Holding `changing`.

    Nothing that was deleted is in them. The old files are deleted after their last user.
    """
    former, record = collection.head, collection.record
    directory = await asyncio.to_thread(collection.generations.make_directory)
    await asyncio.to_thread(replication.begin, directory, former.settings)
    store, source = directory / STORE_FILE, former.store.path

    async def catch_up() -> None:
        await asyncio.to_thread(replication.replicate, store, source, with_vectors=True)

    await catch_up()
    generation = await asyncio.to_thread(Generation, directory, collection.make_dense_index)
    await generation.start()
    await generation.warm()
    await _replace_head(collection, generation, record.placed(record.head, directory.name), catch_up)
    await collection.retire(former)


async def _replace_head(
    collection: LiveCollection, generation: Generation, record: Record, catch_up: Callable[[], Awaitable[object]]
) -> None:
    former, number = collection.head, collection.record.head

    async def bring_up_to_date() -> None:
        await catch_up()
        generation.wake()
        await generation.wait_for(await generation.read(None, Reader.last_sequence), Deadline.never())

    for _ in range(_MAX_ROUNDS):  # So that little is left for the time in which writes wait.
        await bring_up_to_date()
    async with collection.opening, collection.gate:  # In this order: opening a snapshot can take seconds.
        held_at = time.monotonic()
        await bring_up_to_date()
        opened = {key: one for key, one in collection.opened.items() if one is not generation}
        if record.head != number:
            opened[number] = former
        await collection.commit(record, head=generation, opened=opened)
        seconds = round(time.monotonic() - held_at, 3)
    name = collection.settings.name
    log.info("head replaced", collection=name, index_generation=record.head, writes_held_seconds=seconds)
