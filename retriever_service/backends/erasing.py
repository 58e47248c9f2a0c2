"""Erasure in an engine: what is purged is in no generation's index any more, and no roll-back brings it back.

The order is in the ledger first, so that an interrupted purge is completed by whoever changes generations next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from retriever_service.backends.collection import RemoteCollection
from retriever_service.backends.generation import RemoteGeneration
from retriever_service.backends.ledger import Ledger
from retriever_service.backends.remote import RecordKind, RemoteStore, pages
from retriever_service.filters import AnyOf, Condition, In
from retriever_service.generations import Erasure
from retriever_service.purging import Purged
from serving.logs import get_logger

_PER_STEP = 1_000

T = TypeVar("T")

log = get_logger(__name__)


async def complete_purge(collection: RemoteCollection) -> Purged:
    """Does what the ledger orders, from the beginning: every step may be repeated. Holding the lease.

    A passage is followed through all generations by its row: what one of them holds of it under another id goes, too.
    """
    ledger = await collection.look()
    erasure = ledger.erasure
    if erasure is None:
        return Purged(0, 0, ())
    numbers = sorted({*ledger.numbers, *filter(None, [ledger.followed_by])})
    generations = [await collection.generation(number) for number in numbers]
    rows: set[int] = set()
    for generation in generations:
        rows |= await asyncio.to_thread(_rows, generation, erasure)
    rewritten, names = [ledger.head], {*erasure.ids, *erasure.sources}
    sequence = await _delete_from_head(collection, sorted(rows), erasure.sources)
    async with collection.successor_lock:
        for generation in generations:
            if generation.number != ledger.head:
                ids = await asyncio.to_thread(_ids, generation.store, sorted(rows))
                names.update(ids)
                if await _erase(collection, generation, ids, erasure.sources, sequence):
                    rewritten.append(generation.number)
        if not ledger.is_leased("successor", collection.owner):  # Else its retriever reads the log, and deletes it.
            await asyncio.to_thread(_forget, collection.store, names)
    await asyncio.to_thread(collection.store.expunge)
    await collection.change(lambda ledger: replace(ledger, erasure=None))
    log.info("purged", collection=collection.settings.name, passages=len(rows), index_generations=sorted(rewritten))
    return Purged(len(rows), sequence, tuple(sorted(rewritten)))


def _rows(generation: RemoteGeneration, erasure: Erasure) -> set[int]:
    """Rows of one generation that are to go."""
    generation.refresh()
    wanted = AnyOf((In("id", erasure.ids), In("source", erasure.sources)))
    return {one.row for page in pages(generation.store, wanted) for one in page}


async def _delete_from_head(collection: RemoteCollection, rows: Sequence[int], sources: Sequence[str]) -> int:
    """Deletes as any delete does, so that duplicates' sources lose their digest; returns the write's number."""
    ids = await asyncio.to_thread(_ids, collection.store, rows)
    for some in _chunks(ids):
        await collection.delete(Condition("", (), In("id", tuple(some))))
    return (await collection.delete(Condition("", (), In("id", ())), sources)).sequence


async def _erase(
    collection: RemoteCollection,
    generation: RemoteGeneration,
    ids: Sequence[str],
    sources: Sequence[str],
    sequence: int,
) -> bool:
    """Takes passages and sources out of a generation that is not the head; whether it held any."""
    name, number, server, store = collection.settings.name, generation.number, collection.server, generation.store
    is_kept = number in collection.ledger.kept

    def run() -> bool:
        known = [source for source in sources if store.record(RecordKind.SOURCE, source) is not None]
        if not ids and not known:
            return False
        if is_kept:
            server.thaw(name, number)
        try:
            store.remove(ids)
            store.remove_records(RecordKind.SOURCE, known)
            generation.refresh()
            store.expunge()
        finally:
            if is_kept:
                server.freeze(name, number)
        return True

    held_any = await asyncio.to_thread(run)
    if held_any and is_kept:
        num_passages = await asyncio.to_thread(store.count, None)

        def change(ledger: Ledger) -> Ledger:
            kept = replace(ledger.kept[number], num_passages=num_passages, erased_at=sequence)
            return replace(ledger, kept={**ledger.kept, number: kept})

        await collection.change(change)
        await asyncio.to_thread(generation.refresh)
    return held_any


def _ids(store: RemoteStore, rows: Sequence[int]) -> list[str]:
    """The ids that a generation has for these rows."""
    return [one.passage.id for some in _chunks(rows) for one in store.by_rows(some)]


def _forget(store: RemoteStore, names: set[str]) -> None:
    """Takes the names of what was erased out of the log."""
    store.refresh()
    after = ""
    while found := store.record_page(RecordKind.CHANGE, "", after, _PER_STEP):
        after = found[-1][0]
        rest = {name: {**change, **_without(change, names)} for name, change in found}
        concerned = {name: rest[name] for name, change in found if rest[name] != change}
        if concerned:
            store.put_records(RecordKind.CHANGE, concerned)


def _without(change: Mapping[str, Any], names: set[str]) -> dict[str, list[str]]:
    return {what: [name for name in change[what] if name not in names] for what in ("ids", "sources")}


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + _PER_STEP] for start in range(0, len(values), _PER_STEP))
