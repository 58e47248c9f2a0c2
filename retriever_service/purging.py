"""Erasure: what is purged is in no generation's files any more, and no roll-back brings it back.

Files are not cleaned but written anew without it, and the old ones are deleted. The order is recorded first, so that an
interrupted purge is completed at the next start.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retriever_service import replication, schema
from retriever_service.filters import Condition
from retriever_service.generations import STORE_FILE, Erasure
from retriever_service.live_collection import LiveCollection
from retriever_service.snapshot_files import Erased, read_manifest, write_snapshot
from retriever_service.store import Store
from retriever_service.succession import renew_head
from serving.logs import get_logger

log = get_logger(__name__)
_ALL = -1  # SQLite's LIMIT.


@dataclass(frozen=True, slots=True)
class Purged:
    """The outcome of an erasure."""

    num_purged: int
    sequence: int
    rewritten: tuple[int, ...]


async def purge(collection: LiveCollection, erasure: Erasure) -> Purged:
    """Erases passages by id, and sources with their passages, from every generation.

    A passage is followed through all generations: what one of them holds of it under another id goes, too. When the
    caller leaves, the purge goes on.
    """

    async def run() -> Purged:
        async with collection.changing:
            await complete_purge(collection)
            await collection.commit(replace(collection.record, erasure=erasure))
            return await complete_purge(collection)

    return await collection.to_the_end(run())


async def complete_purge(collection: LiveCollection) -> Purged:
    """Does what the record orders, from the beginning: every step may be repeated. Holding `changing`."""
    erasure = collection.record.erasure
    if erasure is None:
        return Purged(0, 0, ())
    found = {
        number: await asyncio.to_thread(_find, collection, number, erasure) for number in collection.record.directories
    }
    rows = sorted(set().union(*(one.rows for one in found.values())))
    written = await collection.delete(_among(rows), erasure.sources)
    await renew_head(collection)
    rewritten = [collection.record.head]
    if collection.record.successor is not None:
        await _renew_successor(collection, collection.record.successor, rows, erasure.sources)
        rewritten.append(collection.record.successor)
    for number in collection.record.frozen:
        here = await asyncio.to_thread(_rows_there, collection, number, rows)
        if here or found[number].sources:
            await _renew_snapshot(collection, number, Erased(here, erasure.sources))
            rewritten.append(number)
    await collection.commit(replace(collection.record, erasure=None))
    log.info("purged", collection=collection.settings.name, passages=len(rows), index_generations=sorted(rewritten))
    return Purged(len(rows), written.sequence, tuple(sorted(rewritten)))


def _find(collection: LiveCollection, number: int, erasure: Erasure) -> Erased:
    """Rows of one generation that are to go, and those of the sources that it knows."""
    store = _open_store(collection, number)
    ids, names = json.dumps(erasure.ids), json.dumps(erasure.sources)
    listed = "IN (SELECT value FROM json_each(?))"
    with store.scanning() as reader:
        rows = reader.matching_rows(Condition(f"(p.id {listed} OR p.source {listed})", (ids, names)), _ALL)
        known = reader.known_sources(erasure.sources)
    store.close()
    return Erased(rows.tolist(), known)


def _rows_there(collection: LiveCollection, number: int, rows: Sequence[int]) -> list[int]:
    store = _open_store(collection, number)
    with store.scanning() as reader:
        here: list[int] = reader.keep_matching(np.array(rows, np.int64), Condition("TRUE", ())).tolist()
    store.close()
    return here


def _open_store(collection: LiveCollection, number: int) -> Store:
    record = collection.record
    path = collection.generations.path(number) / STORE_FILE
    return Store(path, is_frozen=number not in (record.head, record.successor))


async def _renew_snapshot(collection: LiveCollection, number: int, erased: Erased) -> None:
    source = collection.generations.path(number)
    manifest = await asyncio.to_thread(read_manifest, source)
    target = await asyncio.to_thread(collection.generations.make_directory)
    await asyncio.to_thread(
        lambda: write_snapshot(
            source / STORE_FILE, target, number, manifest.label, created_at=manifest.created_at, erased=erased
        )
    )
    await collection.replace(collection.record.placed(number, target.name), number)


async def _renew_successor(
    collection: LiveCollection, number: int, rows: Sequence[int], sources: Iterable[str]
) -> None:
    async with collection.successor_lock:
        source = collection.generations.path(number) / STORE_FILE
        target = await asyncio.to_thread(collection.generations.make_directory)
        await asyncio.to_thread(replication.erase, source, collection.head.store.path, rows, sources)
        await asyncio.to_thread(schema.copy, source, target / STORE_FILE)
        await collection.replace(collection.record.placed(number, target.name), number)
    collection.written.set()


def _among(rows: Sequence[int]) -> Condition:
    return Condition("p.row IN (SELECT value FROM json_each(?))", (json.dumps(rows),))
