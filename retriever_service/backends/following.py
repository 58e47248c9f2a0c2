"""What another generation lacks of the head of a remote collection is brought over, step by step.

While a generation follows, every write to the head tells the ledger's log which documents and sources it changes. The
follower brings them over from the head as it is then, so an entry may be done more than once, and in any order. Rows
and sequence numbers stay the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from retriever_service.backends.collection import RemoteCollection
from retriever_service.backends.generation import RemoteGeneration
from retriever_service.backends.ledger import Ledger, read_ledger
from retriever_service.backends.remote import Document, RecordKind, RemoteStore
from retriever_service.collection import CollectionSettings
from retriever_service.encoder import PassageText
from retriever_service.encoding import Encoding
from retriever_service.vectors import normalised
from serving.errors import FailedPrecondition
from serving.logs import get_logger

BATCH_SIZE = 64  # Documents brought over in one step; a lease must outlast one.
_CHANGES_PER_PAGE = 1_000
_POLL_SECONDS = 1.0

MakeVectors = Callable[[Sequence[Document]], Awaitable[list[Document]]]

log = get_logger(__name__)


class Follower:
    """Brings the successor of a collection to the head's state, step by step; each step may be repeated."""

    def __init__(self, collection: RemoteCollection, target: RemoteGeneration, make_vectors: MakeVectors) -> None:
        """Prepares.

        Args:
            collection: Has the successor.
            target: The successor.
            make_vectors: Gives documents, which come with the head's vectors, those that the successor holds.
        """
        self._collection, self._target, self._make_vectors = collection, target, make_vectors

    async def fill(self) -> AsyncIterator[int]:
        """Brings everything over, telling how many documents are there after each step. Holding the lease."""
        head = self._collection.head
        await asyncio.to_thread(head.refresh)
        num, after = 0, ""
        while found := await asyncio.to_thread(head.store.page, None, after, BATCH_SIZE):
            await self._bring([one.passage.id for one in found])
            num, after = num + len(found), found[-1].passage.id
            yield num
        after = ""
        while some := await asyncio.to_thread(head.store.record_page, RecordKind.SOURCE, "", after, BATCH_SIZE):
            await asyncio.to_thread(self._target.store.put_records, RecordKind.SOURCE, dict(some))
            after = some[-1][0]
        await self.drain()

    async def drain(self) -> None:
        """Brings over what was written before this was called."""
        store = self._collection.store
        sequence = (await asyncio.to_thread(read_ledger, store)).sequence
        await asyncio.to_thread(store.refresh)
        after = ""
        while found := await asyncio.to_thread(store.record_page, RecordKind.CHANGE, "", after, _CHANGES_PER_PAGE):
            for _, change in found:
                await self._bring(change["ids"])
                await asyncio.to_thread(_bring_sources, store, self._target.store, change["sources"])
            done = [name for name, change in found if change["is_done"]]
            await asyncio.to_thread(store.remove_records, RecordKind.CHANGE, done)
            after = found[-1][0]
        await self._touch(sequence)

    async def follow(self) -> None:
        """Brings the successor what is written to the head, until another retriever does."""
        collection = self._collection
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                ledger = await collection.look()
                if ledger.successor is None or ledger.followed_by != self._target.number:
                    return
                if ledger.successor.sequence < ledger.sequence:
                    async with collection.leasing("successor"):
                        await self.drain()
            except FailedPrecondition as error:
                log.info("re-encoded generation is followed elsewhere", cause=error.message)
                return
            except Exception:  # What was written is safe in the head, so trying again is.
                log.exception("re-encoded generation cannot follow", collection=collection.settings.name)

    async def _bring(self, ids: Sequence[str]) -> None:
        """Makes the successor hold of these ids what the head holds of them now."""
        if ids:  # To the end, for a thread that writes cannot be stopped.
            await self._collection.to_the_end(self._bring_now(ids))

    async def _bring_now(self, ids: Sequence[str]) -> None:
        head, target = self._collection.store, self._target.store
        async with self._collection.successor_lock:
            there = {one.passage.id: one for one in await asyncio.to_thread(target.by_ids, ids)}
            found = await asyncio.to_thread(head.by_ids, ids)
            lacking, kept = [], []
            for one in found:
                known = there.get(one.passage.id)
                if known is None or known.row != one.row:
                    lacking.append(one)
                elif _is_changed(one, known):
                    kept.append(replace(one, vector=known.vector))
            made = await self._make_vectors(lacking) if lacking else []
            await self._touch()  # Whoever took the lease meanwhile must not be interfered with.
            gone = there.keys() - {one.passage.id for one in found}
            if kept or made:
                await asyncio.to_thread(target.put, kept + made)
            if gone:
                await asyncio.to_thread(target.remove, sorted(gone))

    async def _touch(self, sequence: int = 0) -> None:
        """Renews the lease, and says how far the successor is."""
        number, owner = self._target.number, self._collection.owner

        def change(ledger: Ledger) -> Ledger:
            if ledger.successor is None or ledger.successor.number != number:
                raise FailedPrecondition(
                    f"index generation {number} was dropped by another retriever", reason="GENERATIONS_CHANGING"
                )
            successor = replace(ledger.successor, sequence=max(ledger.successor.sequence, sequence))
            return replace(ledger, successor=successor).leased("successor", owner)

        await self._collection.change(change)


def copied(documents: Sequence[Document]) -> Awaitable[list[Document]]:
    """The documents with the head's vectors, for a successor of the same encoder."""

    async def same() -> list[Document]:
        return list(documents)

    return same()


async def encoding_with(encoding: Encoding, settings: CollectionSettings) -> MakeVectors:
    """Gives documents the vectors of a successor's encoder."""
    encoder = await encoding.encoder_of(
        settings.encoder, collection=settings.name, follows_server=settings.follows_server_encoder
    )

    async def encode(documents: Sequence[Document]) -> list[Document]:
        texts = [PassageText(one.passage.text, one.passage.title) for one in documents]
        vectors = normalised(await encoding.embed_passages(encoder, texts), settings.metric)
        return [replace(one, vector=vector) for one, vector in zip(documents, vectors, strict=True)]

    return encode


def _bring_sources(source: RemoteStore, target: RemoteStore, names: Sequence[str]) -> None:
    """Makes the target hold of these sources what the source holds of them now."""
    found = {name: source.record(RecordKind.SOURCE, name) for name in names}
    there = {name: record.value for name, record in found.items() if record is not None}
    if there:
        target.put_records(RecordKind.SOURCE, there)
    if gone := sorted(found.keys() - there.keys()):
        target.remove_records(RecordKind.SOURCE, gone)


def _is_changed(one: Document, known: Document) -> bool:
    """Whether documents of the same content differ in anything else."""
    return (one.passage, one.duplicate_sources) != (known.passage, known.duplicate_sources)
