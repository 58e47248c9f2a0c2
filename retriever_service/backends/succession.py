"""A generation is made beside the head of a remote collection, follows it, and takes its place.

Only the last step holds writes back: the head is frozen, the rest brought over, the ledger changed in one piece, and
the alias pointed elsewhere.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from retriever_service.backends.collection import RemoteCollection
from retriever_service.backends.following import Follower, encoding_with
from retriever_service.backends.generation import RemoteGeneration
from retriever_service.backends.ledger import Following, Kept, Ledger, change_ledger
from retriever_service.backends.remote import RecordKind, RemoteStore
from retriever_service.collection import CollectionSettings
from retriever_service.encoding import Encoding
from serving.errors import FailedPrecondition, RagError
from serving.logs import get_logger

_RECORDS_PER_PAGE = 1_000
_MAX_KEPT = 32  # Milvus's limit for a JSON value, such as the ledger, is 64 kB.

log = get_logger(__name__)


async def begin(collection: RemoteCollection, settings: CollectionSettings) -> int:
    """Makes an empty successor and has writes logged from now on; returns its number. Holding the lease."""
    number = (await collection.change(take_number)).next_number - 1
    await asyncio.to_thread(collection.server.make, settings, number)
    async with collection.gate:  # Between two writes.
        await collection.change(lambda ledger: replace(ledger, successor=Following(number, settings)))
    return number


async def abandon(collection: RemoteCollection) -> None:
    """Removes the successor, if there is one. Holding the lease."""
    number = collection.ledger.followed_by
    if not number:
        return
    await stop_following(collection)
    former = collection.opened.get(number)
    await collection.change(lambda ledger: replace(ledger, successor=None))
    await remove(collection, number, former)
    await asyncio.to_thread(_forget, collection.store, RecordKind.CHANGE)


async def remove(collection: RemoteCollection, number: int, former: RemoteGeneration | None) -> None:
    """Removes what the engine holds of a generation that the ledger does not name any more, after its last user."""
    if former is not None:
        await former.users.close()
    settings, server = collection.settings, collection.server
    store = former.store if former is not None else await asyncio.to_thread(server.open, settings, number)
    await asyncio.to_thread(_forget, store, RecordKind.SOURCE)
    await asyncio.to_thread(server.remove, settings.name, number)


async def start_following(collection: RemoteCollection, encoding: Encoding) -> None:
    """Keeps a complete successor at the head's state from now on; where its encoder cannot be had, nobody does."""
    successor = collection.ledger.successor
    if successor is None or not successor.is_complete:
        return
    try:
        make_vectors = await encoding_with(encoding, successor.settings)
    except RagError as error:
        log.warning("re-encoded generation is not kept up to date", cause=error.message)
        collection.keep_up = None
        return
    await stop_following(collection)
    follower = Follower(collection, await collection.generation(successor.number), make_vectors)

    async def follow() -> None:
        await follower.follow()
        collection.follower = None

    collection.follower = asyncio.create_task(follow(), context=contextvars.Context())


async def stop_following(collection: RemoteCollection) -> None:
    """Ends what `start_following` began."""
    if collection.follower is not None:
        collection.follower.cancel()
        await asyncio.gather(collection.follower, return_exceptions=True)
        collection.follower = None


async def take_over(collection: RemoteCollection, follower: Follower, label: str, *, activates: bool) -> None:
    """Makes the successor the head, and the former head a frozen generation. Holding both leases."""
    successor = collection.ledger.successor
    assert successor is not None
    await follower.drain()  # So that little is left for the time in which writes wait.
    await replace_head(collection, successor.number, successor.settings, follower.drain, label, activates=activates)
    await asyncio.to_thread(_forget, collection.store, RecordKind.CHANGE)


async def replace_head(
    collection: RemoteCollection,
    number: int,
    settings: CollectionSettings,
    bring: Callable[[], Awaitable[None]],
    label: str,
    *,
    activates: bool,
) -> None:
    """Freezes the head, brings what it holds to another generation, and lets that one take the writes.

    Args:
        collection: Whose lease is held.
        number: The new head's number.
        settings: The new head's.
        bring: Completes it, while nobody writes.
        label: Of the former head.
        activates: Whether it is served from now on, even if the former head was not.
    """
    former, server, name = collection.head, collection.server, collection.settings.name
    async with collection.gate:
        held_at = time.monotonic()
        await collection.change(lambda ledger: replace(ledger, is_held=True))  # What is not told by now is made again.
        try:
            await asyncio.to_thread(server.freeze, name, former.number)
            await bring()
            await asyncio.to_thread(former.refresh)
            num_passages = await asyncio.to_thread(former.store.count, None)

            def change(ledger: Ledger) -> Ledger:
                kept = Kept(ledger.settings, label, ledger.sequence, num_passages, time.time())
                active = number if activates or ledger.active == ledger.head else ledger.active
                successor = None if ledger.followed_by == number else ledger.successor
                return replace(
                    ledger,
                    settings=settings,
                    head=number,
                    active=active,
                    is_held=False,
                    kept={**ledger.kept, former.number: kept},
                    successor=successor,
                )

            ledger = await asyncio.to_thread(change_ledger, collection.store, change)
        except BaseException:
            await asyncio.to_thread(server.thaw, name, former.number)
            await collection.change(lambda ledger: replace(ledger, is_held=False))
            raise
        await asyncio.to_thread(server.point, name, ledger.active)
        await collection.learn(ledger)
    seconds = round(time.monotonic() - held_at, 3)
    log.info("head replaced", collection=name, index_generation=number, writes_held_seconds=seconds)


def take_number(ledger: Ledger) -> Ledger:
    """Takes the next generation's number.

    Raises:
        FailedPrecondition: When there are as many generations as may be.
    """
    if len(ledger.kept) >= _MAX_KEPT:
        raise FailedPrecondition(
            f"collection {ledger.settings.name!r} keeps {_MAX_KEPT} index generations, the limit in an engine: drop "
            "one first",
            reason="TOO_MANY_GENERATIONS",
        )
    return replace(ledger, next_number=ledger.next_number + 1)


def copy_sources(source: RemoteStore, target: RemoteStore) -> None:
    """Brings every record of a source over."""
    source.refresh()
    after = ""
    while some := source.record_page(RecordKind.SOURCE, "", after, _RECORDS_PER_PAGE):
        target.put_records(RecordKind.SOURCE, dict(some))
        after = some[-1][0]


def _forget(store: RemoteStore, kind: RecordKind) -> None:
    """Removes every record of a kind."""
    store.refresh()
    after = ""
    while found := store.record_page(kind, "", after, _RECORDS_PER_PAGE):
        after = found[-1][0]
        store.remove_records(kind, [name for name, _ in found])
