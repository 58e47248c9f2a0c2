"""Snapshots of a collection: made, listed, activated, compared."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from retriever_service.encoding import Encoding
from retriever_service.generations import STORE_FILE
from retriever_service.limits import LIMITS, check_text
from retriever_service.live_collection import LiveCollection
from retriever_service.snapshot_files import MANIFEST_FILE, Manifest, check_files, read_manifest, write_snapshot
from retriever_service.store import Reader
from retriever_service.succession import stop_following, take_over
from retriever_service.transaction import index_digest
from serving.errors import FailedPrecondition, RagError
from serving.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One index generation as it is listed; a live one takes writes, or follows the one that does."""

    collection: str
    index_generation: int
    label: str
    sequence: int
    num_passages: int
    digest: str
    encoder_digest: str
    created_at: float
    is_active: bool
    is_live: bool


class Change(enum.StrEnum):
    """What happened to a passage between two generations."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


async def create_snapshot(collection: LiveCollection, label: str) -> Snapshot:
    """Freezes the head's present state: the snapshot takes the head's number, the head the next one.

    Numbers that answers have named thus stay true: what they name is frozen now. Writes go on meanwhile.
    """
    check_text(label, LIMITS.max_label_bytes, "label")

    async def create() -> Snapshot:
        async with collection.changing:
            number = collection.record.head
            directory = await asyncio.to_thread(collection.generations.make_directory)
            source = collection.head.directory / STORE_FILE
            manifest = await asyncio.to_thread(write_snapshot, source, directory, number, label)
            record = collection.record
            head = record.next_number
            record = record.placed(head, record.directories[number]).placed(number, directory.name)
            active = head if record.active == number else record.active
            await collection.commit(replace(record, head=head, active=active, next_number=head + 1))
            log.info("snapshot created", collection=collection.settings.name, index_generation=number, label=label)
            return _from_manifest(collection, manifest)

    return await collection.to_the_end(create())


async def list_snapshots(collection: LiveCollection) -> list[Snapshot]:
    """Every generation, newest first: snapshots, and the live ones that take writes."""
    while True:
        record = collection.record
        try:
            return [
                await describe_generation(collection, number) for number in sorted(record.directories, reverse=True)
            ]
        except (KeyError, RagError):  # One was dropped, or written anew, meanwhile.
            if collection.record is record:
                raise


async def describe_generation(collection: LiveCollection, number: int) -> Snapshot:
    """One generation as it is now."""
    record = collection.record
    directory = collection.generations.path(number)
    if number not in (record.head, record.successor) and (directory / MANIFEST_FILE).exists():
        return _from_manifest(collection, await asyncio.to_thread(read_manifest, directory))
    if number == record.successor and not record.is_successor_complete:
        return Snapshot(collection.settings.name, number, "re-encoding", 0, 0, "", "", 0.0, False, True)
    async with collection.serving(number) as pinned:
        digest = pinned.settings.encoder.digest

        def read(reader: Reader) -> Snapshot:
            return Snapshot(
                collection.settings.name,
                number,
                label="head" if pinned.is_head else f"re-encoded with {pinned.settings.encoder.name}",
                sequence=reader.last_sequence(),
                num_passages=reader.num_passages(),
                digest=index_digest(reader, digest),
                encoder_digest=digest,
                created_at=float(reader.meta("updated_at", "0")),
                is_active=number == record.active,
                is_live=True,
            )

        return await pinned.generation.read(None, read)


async def activate(collection: LiveCollection, number: int, encoding: Encoding) -> tuple[Snapshot, int]:
    """Serves a generation from now on; returns it and the number of the one before.

    It is loaded and warm before the swap, which is one assignment; requests under way end on what they began with.

    Raises:
        NotFound: When there is none of this number.
        FailedPrecondition: When its files are damaged.
    """

    async def swap() -> tuple[Snapshot, int]:
        async with collection.changing:
            collection.check_exists(number)
            previous = collection.record.active
            if number == collection.record.successor:
                await take_over(collection, encoding)
            elif number == collection.record.head:
                await collection.commit(replace(collection.record, active=number))
            elif number != previous:
                await asyncio.to_thread(check_files, collection.generations.path(number), by_content=True)
                async with collection.serving(number) as pinned:
                    await pinned.generation.warm()
                    await collection.commit(replace(collection.record, active=number))
            log.info("activated", collection=collection.settings.name, index_generation=number, previous=previous)
            await settle_all(collection)
            return await describe_generation(collection, number), previous

    return await collection.to_the_end(swap())


async def drop_snapshot(collection: LiveCollection, number: int) -> None:
    """Deletes a snapshot, or a re-encoded generation that was not activated; who reads it now reads to the end.

    Raises:
        NotFound: When there is none of this number.
        FailedPrecondition: When it is the head, or is being served.
    """

    async def drop() -> None:
        async with collection.changing:
            record = collection.record
            if number not in record.directories:
                collection.check_exists(number)
            if number in (record.head, record.active):
                state = "takes the writes" if number == record.head else "is being served"
                raise FailedPrecondition(f"index generation {number} {state}", reason="INDEX_GENERATION_IN_USE")
            if number == record.successor:
                if collection.reencoding.locked():
                    raise FailedPrecondition(f"index generation {number} is being made", reason="REENCODING_UNDER_WAY")
                await stop_following(collection)
            await collection.replace(record.without(number), number)

    await collection.to_the_end(drop())


async def settle_all(collection: LiveCollection) -> None:
    """Writes former heads as the snapshots they have become. Holding `changing`."""
    for number in collection.record.frozen:
        directory = collection.generations.path(number)
        if not (directory / MANIFEST_FILE).exists():
            await rewrite(collection, number, directory, "before re-encoding")


async def rewrite(collection: LiveCollection, number: int, source: Path, label: str, created_at: float = 0.0) -> None:
    """Writes a snapshot into a new directory, in the present format, and replaces it. Holding `changing`."""
    target = await asyncio.to_thread(collection.generations.make_directory)
    await asyncio.to_thread(write_snapshot, source / STORE_FILE, target, number, label, created_at=created_at)
    await collection.replace(collection.record.placed(number, target.name), number)


def differences(before: Reader, after: Reader) -> Iterator[tuple[str, Change]]:
    """(passage id, change) of every passage that differs in text, title, source, place or metadata, in id order."""
    left, right = iter(before.scan_versions()), iter(after.scan_versions())
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and _key(old) < _key(new)):
            assert old is not None
            yield old[0], Change.REMOVED
            old = next(left, None)
        elif old is None or _key(new) < _key(old):
            yield new[0], Change.ADDED
            new = next(right, None)
        else:
            if old[1] != new[1]:
                yield new[0], Change.CHANGED
            old, new = next(left, None), next(right, None)


def _key(version: tuple[str, object]) -> bytes:
    return version[0].encode()  # SQLite's order.


def _from_manifest(collection: LiveCollection, manifest: Manifest) -> Snapshot:
    return Snapshot(
        collection.settings.name,
        manifest.index_generation,
        manifest.label,
        manifest.sequence,
        manifest.num_passages,
        manifest.digest,
        manifest.encoder_digest,
        manifest.created_at,
        is_active=manifest.index_generation == collection.record.active,
        is_live=False,
    )
