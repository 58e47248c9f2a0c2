"""Re-encoding: another encoder's vectors for the same passages, as a generation of their own, while writes go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from retriever_service import replication
from retriever_service.collection import CollectionRequest, CollectionSettings, EncoderIdentity, Metric
from retriever_service.encoding import Encoding
from retriever_service.generations import STORE_FILE
from retriever_service.live_collection import LiveCollection
from retriever_service.snapshots import settle_all
from retriever_service.store import Reader, Store
from retriever_service.stored_settings import settings_from_json
from retriever_service.succession import BATCH_SIZE, Successor, start_following, stop_following, take_over
from serving.errors import FailedPrecondition, NotFound


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a re-encoding has come."""

    num_encoded: int
    num_total: int
    index_generation: int


async def reencode(
    collection: LiveCollection, encoding: Encoding, encoder_name: str, *, activates: bool
) -> AsyncGenerator[Progress, None]:
    """Builds the generation, telling after each step; interrupted, it goes on where it was when asked for again.

    The generation follows what is written to the head from then on. Activated, it becomes the head, and the former
    head a snapshot.

    Raises:
        FailedPrecondition: When the encoder cannot be had, the collection has it already, or is being re-encoded.
    """
    encoder = await encoding.encoder(encoder_name)
    identity = encoder.info.identity
    check_other_encoder(collection.settings, identity)
    if collection.reencoding.locked():
        raise FailedPrecondition(
            f"collection {collection.settings.name!r} is being re-encoded", reason="REENCODING_UNDER_WAY"
        )
    async with collection.reencoding:
        settings = reencoded(collection.settings, identity, follows_server=not encoder_name)
        number = await collection.to_the_end(_begin(collection, settings))
        successor = Successor(collection, encoding, encoder)
        num_total = await collection.read(None, Reader.num_passages)
        store = collection.generations.path(number) / STORE_FILE
        num_encoded = await asyncio.to_thread(replication.num_vectors, store)
        yield Progress(num_encoded, max(num_total, num_encoded), number)
        count = BATCH_SIZE
        while count == BATCH_SIZE:  # A smaller step ends at what was written just now.
            if collection.users.is_closing:
                raise NotFound("the collection is being dropped", reason="COLLECTION_NOT_FOUND")
            count = await successor.encode_next()
            num_encoded += count
            yield Progress(num_encoded, max(num_total, num_encoded), number)
        await successor.catch_up()
        await collection.to_the_end(_complete(collection, encoding, activates=activates))
    yield Progress(num_encoded, num_encoded, number)


def check_other_encoder(settings: CollectionSettings, encoder: EncoderIdentity) -> None:
    """Checks that there is anything to re-encode.

    Raises:
        FailedPrecondition: When the collection has this encoder.
    """
    if encoder.digest == settings.encoder.digest:
        raise FailedPrecondition(
            f"collection {settings.name!r} holds vectors of encoder {encoder.name!r} already",
            reason="ENCODER_UNCHANGED",
        )


def reencoded(settings: CollectionSettings, encoder: EncoderIdentity, *, follows_server: bool) -> CollectionSettings:
    """A collection's settings with another encoder; scores of another range take that range's default scoring."""
    changed = replace(settings, encoder=encoder, follows_server_encoder=follows_server)
    if _is_bounded(settings) == _is_bounded(changed):
        return changed
    asked = CollectionRequest(settings.name, metric=settings.metric, sentence_vectors=settings.sentence_vectors)
    default = asked.settle(encoder)
    return replace(changed, temperature=default.temperature, fusion=default.fusion)


def _is_bounded(settings: CollectionSettings) -> bool:
    return settings.metric is Metric.COSINE or settings.encoder.is_normalising


async def _begin(collection: LiveCollection, settings: CollectionSettings) -> int:
    """The successor's number: an interrupted one with the same encoder, or a new one in place of any other."""
    async with collection.changing:
        record = collection.record
        if record.successor is not None:
            found = await asyncio.to_thread(_encoder_of, collection, record.successor)
            if found.digest == settings.encoder.digest:
                return record.successor
            await stop_following(collection)
            await collection.replace(record.without(record.successor), record.successor)
            record = collection.record
        directory = await asyncio.to_thread(collection.generations.make_directory)
        await asyncio.to_thread(replication.begin, directory, settings)
        number = record.next_number
        record = replace(record.placed(number, directory.name), successor=number, next_number=number + 1)
        await collection.commit(record)
        return number


async def _complete(collection: LiveCollection, encoding: Encoding, *, activates: bool) -> None:
    async with collection.changing:
        await collection.commit(replace(collection.record, is_successor_complete=True))
        if activates:
            await take_over(collection, encoding)
            await settle_all(collection)
        else:
            await start_following(collection, encoding)


def _encoder_of(collection: LiveCollection, number: int) -> EncoderIdentity:
    store = Store(collection.generations.path(number) / STORE_FILE)
    with store.reading() as reader:
        settings = settings_from_json(reader.meta("settings"))
    store.close()
    return settings.encoder
