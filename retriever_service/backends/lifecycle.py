"""What is done to the generations of a remote collection: what `lifecycle.LocalLifecycle` does to local ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from retriever_service.backends import erasing, succession
from retriever_service.backends.collection import RemoteCollection, RemotePinned
from retriever_service.backends.following import Follower, copied, encoding_with
from retriever_service.backends.ledger import Kept, Ledger
from retriever_service.backends.remote import refuse
from retriever_service.collection import CollectionSettings
from retriever_service.encoding import Encoding
from retriever_service.generations import Erasure
from retriever_service.limits import LIMITS, check_text
from retriever_service.purging import Purged
from retriever_service.reencoding import Progress, check_other_encoder, reencoded
from retriever_service.selection import Selection
from retriever_service.snapshots import Snapshot
from retriever_service.store import Reader
from retriever_service.transaction import index_digest
from serving.errors import FailedPrecondition, NotFound, RagError
from serving.logs import get_logger

log = get_logger(__name__)


class RemoteLifecycle:
    """The generations of one remote collection."""

    def __init__(self, collection: RemoteCollection) -> None:
        """Takes the collection."""
        self._collection = collection

    async def create_snapshot(self, label: str) -> Snapshot:
        """Freezes the head's present state: the snapshot keeps the head's number, the head takes the next one.

        An engine that clones does it while writes wait; into another, everything is copied first, and writes wait for
        what came meanwhile.

        Raises:
            FailedPrecondition: When the engine cannot clone now, or a re-encoded generation is in the copy's way.
        """
        check_text(label, LIMITS.max_label_bytes, "label")
        collection = self._collection

        async def create() -> Snapshot:
            async with self._changing():
                number = collection.head.number
                if collection.abilities.clones:
                    await self._clone(label)
                else:
                    await self._copy(label)
                log.info("snapshot created", collection=collection.settings.name, index_generation=number, label=label)
                return await self.describe(number)

        return await collection.to_the_end(create())

    async def list_snapshots(self) -> list[Snapshot]:
        """Every generation, newest first."""
        while True:
            ledger = await self._collection.look()
            numbers = sorted({*ledger.numbers, *filter(None, [ledger.followed_by])}, reverse=True)
            try:
                return [await self.describe(number) for number in numbers]
            except RagError:  # One was dropped meanwhile.
                if self._collection.ledger is ledger:
                    raise

    async def describe(self, number: int) -> Snapshot:
        """One generation as it is now."""
        collection, ledger = self._collection, self._collection.ledger
        name = collection.settings.name
        kept, successor = ledger.kept.get(number), ledger.successor
        if successor is not None and number == successor.number and not successor.is_complete:
            return Snapshot(name, number, "re-encoding", 0, 0, "", "", 0.0, False, True)
        async with collection.serving(number) as served:
            digest = served.settings.encoder.digest

            def read(reader: Reader) -> Snapshot:
                return Snapshot(
                    name,
                    number,
                    label=kept.label if kept is not None else _label_of(served),
                    sequence=reader.last_sequence(),
                    num_passages=kept.num_passages if kept is not None else reader.num_passages(),
                    digest=index_digest(reader, digest),
                    encoder_digest=digest,
                    created_at=float(reader.meta("updated_at", "0")),
                    is_active=number == ledger.active,
                    is_live=kept is None,
                )

            return await served.generation.read(None, read)

    async def activate(self, number: int, encoding: Encoding) -> tuple[Snapshot, int]:
        """Serves a generation from now on; returns it and the number of the one before.

        Raises:
            NotFound: When there is none of this number.
            FailedPrecondition: When another retriever is writing to it.
        """
        collection = self._collection

        async def swap() -> tuple[Snapshot, int]:
            async with self._changing():
                ledger = await collection.look()
                ledger.check_exists(number)
                previous = ledger.active
                if ledger.successor is not None and number == ledger.followed_by:
                    await succession.stop_following(collection)
                    target = await collection.generation(number)
                    make_vectors = await encoding_with(encoding, ledger.successor.settings)
                    async with collection.leasing("successor"):
                        follower = Follower(collection, target, make_vectors)
                        await succession.take_over(collection, follower, "before re-encoding", activates=True)
                else:
                    await collection.generation(number)  # Loaded before it is served.
                    await collection.change(lambda ledger: replace(ledger, active=number))
                    await asyncio.to_thread(collection.server.point, collection.settings.name, number)
                log.info("activated", collection=collection.settings.name, index_generation=number, previous=previous)
                return await self.describe(number), previous

        return await collection.to_the_end(swap())

    async def drop_snapshot(self, number: int) -> None:
        """Deletes a frozen generation, or a re-encoded one that was not activated; who reads it here reads to the end.

        Raises:
            NotFound: When there is none of this number.
            FailedPrecondition: When it is the head, or is being served, or being made.
        """
        collection = self._collection

        async def drop() -> None:
            async with self._changing():
                ledger = await collection.look()
                if number == ledger.followed_by and number:
                    if collection.reencoding.locked():
                        raise FailedPrecondition(
                            f"index generation {number} is being made", reason="REENCODING_UNDER_WAY"
                        )
                    async with collection.leasing("successor"):
                        await succession.abandon(collection)
                    return
                ledger.check_exists(number)
                if number in (ledger.head, ledger.active):
                    state = "takes the writes" if number == ledger.head else "is being served"
                    raise FailedPrecondition(f"index generation {number} {state}", reason="INDEX_GENERATION_IN_USE")
                former = collection.opened.get(number)
                await collection.change(lambda ledger: replace(ledger, kept=_without(ledger, number)))
                await succession.remove(collection, number, former)

        await collection.to_the_end(drop())

    async def reencode(
        self, encoding: Encoding, encoder_name: str, *, activates: bool
    ) -> AsyncGenerator[Progress, None]:
        """Builds a generation with another encoder's vectors beside the head, telling after each step.

        Interrupted, it goes on where it was when asked for again. Activated, it becomes the head.

        Raises:
            FailedPrecondition: When the encoder cannot be had, the collection has it already, or is being re-encoded.
        """
        collection = self._collection
        encoder = await encoding.encoder(encoder_name)
        check_other_encoder(collection.settings, encoder.info.identity)
        if collection.reencoding.locked() or (await collection.look()).is_leased("successor"):
            raise FailedPrecondition(
                f"collection {collection.settings.name!r} is being re-encoded", reason="REENCODING_UNDER_WAY"
            )
        async with collection.reencoding, collection.leasing("successor"):
            settings = reencoded(collection.settings, encoder.info.identity, follows_server=not encoder_name)
            number = await collection.to_the_end(self._begin(settings.encoder.digest, settings))
            follower = Follower(
                collection, await collection.generation(number), await encoding_with(encoding, settings)
            )
            num_total = await collection.read(None, lambda reader: reader.num_passages())
            num = 0
            yield Progress(num, num_total, number)
            async for num in follower.fill():
                if collection.users.is_closing:
                    raise NotFound("the collection is being dropped", reason="COLLECTION_NOT_FOUND")
                yield Progress(num, max(num_total, num), number)
            await collection.to_the_end(self._complete(follower, encoding, activates=activates))
        yield Progress(num, num, number)

    async def purge(self, selection: Selection) -> Purged:
        """Erases passages by id, and sources with their passages, from every generation.

        When the caller leaves, the purge goes on; interrupted, it is completed by the next.
        """

        async def run() -> Purged:
            async with self._changing():
                erasure = Erasure(tuple(selection.ids), tuple(selection.sources))
                await self._collection.change(lambda ledger: replace(ledger, erasure=erasure))
                return await erasing.complete_purge(self._collection)

        return await self._collection.to_the_end(run())

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """One change of generations at a time, among all retrievers; what a purge left to do is done first."""
        collection = self._collection
        async with collection.changing, collection.leasing("generations"):
            await erasing.complete_purge(collection)
            yield

    async def _clone(self, label: str) -> None:
        collection = self._collection
        former, settings = collection.head, collection.settings
        number = (await collection.change(succession.take_number)).next_number - 1

        async def bring() -> None:
            server = collection.server
            await asyncio.to_thread(server.clone, settings.name, former.number, number)
            target = await asyncio.to_thread(server.open, settings, number)
            await asyncio.to_thread(succession.copy_sources, former.store, target)

        await succession.replace_head(collection, number, settings, bring, label, activates=False)

    async def _copy(self, label: str) -> None:
        collection = self._collection
        successor = collection.ledger.successor
        if successor is not None and (successor.is_complete or collection.reencoding.locked()):
            raise refuse(
                collection.abilities.kind,
                "snapshots while there is a re-encoded generation",
                f"activate or drop index generation {successor.number} first",
            )
        async with collection.leasing("successor"):
            await succession.abandon(collection)  # What was interrupted.
            number = await succession.begin(collection, collection.settings)
            follower = Follower(collection, await collection.generation(number), copied)
            async for _ in follower.fill():
                pass
            await succession.take_over(collection, follower, label, activates=False)

    async def _begin(self, digest: str, settings: CollectionSettings) -> int:
        """The successor's number: an interrupted one with the same encoder, or a new one in place of any other."""
        collection = self._collection
        async with self._changing():
            successor = (await collection.look()).successor
            if successor is not None and successor.settings.encoder.digest == digest:
                await succession.stop_following(collection)
                return successor.number
            await succession.abandon(collection)
            return await succession.begin(collection, settings)

    async def _complete(self, follower: Follower, encoding: Encoding, *, activates: bool) -> None:
        collection = self._collection
        async with self._changing():
            if activates:
                await succession.take_over(collection, follower, "before re-encoding", activates=True)
                return
            await collection.change(_completed)
            await succession.start_following(collection, encoding)


def _completed(ledger: Ledger) -> Ledger:
    assert ledger.successor is not None
    return replace(ledger, successor=replace(ledger.successor, is_complete=True))


def _without(ledger: Ledger, number: int) -> Mapping[int, Kept]:
    return {key: one for key, one in ledger.kept.items() if key != number}


def _label_of(served: RemotePinned) -> str:
    return "head" if served.is_head else f"re-encoded with {served.settings.encoder.name}"
