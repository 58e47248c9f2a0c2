"""The open collections of a retriever: found, made, configured, described, dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from retriever_service.backends.collection import RemoteCollection
from retriever_service.backends.protocol import Backend, OpenCollection
from retriever_service.backends.succession import start_following
from retriever_service.background import Background
from retriever_service.collection import (
    CollectionRequest,
    CollectionSettings,
    check_collection_name,
    check_temperature,
)
from retriever_service.encoder import EncoderInfo
from retriever_service.encoding import Encoding
from retriever_service.fusion import FusionChange
from retriever_service.lexical_index import check_language
from retriever_service.limits import LIMITS
from retriever_service.live_collection import LiveCollection
from retriever_service.metrics import RetrieverMetrics
from retriever_service.recovery import recover
from retriever_service.store import Reader
from retriever_service.transaction import index_digest
from serving.errors import FailedPrecondition, InvalidRequest, NotFound
from serving.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection as it is now. Moments are Unix time in seconds."""

    settings: CollectionSettings
    encoder: EncoderInfo
    num_passages: int
    num_sources: int
    sequence: int
    index_generation: int
    index_digest: str
    index_kind: str
    measured_recall: float
    created_at: float
    updated_at: float


class Library:
    """Owns the open collections. For one event loop."""

    def __init__(self, catalog: Backend, encoding: Encoding, threads: Executor, metrics: RetrieverMetrics) -> None:
        """Prepares; `start` opens what is on disk.

        Args:
            catalog: Where the collections are.
            encoding: Knows the encoders.
            threads: For reading.
            metrics: Told what collections hold.
        """
        self._catalog, self._encoding, self._threads, self._metrics = catalog, encoding, threads, metrics
        self._open: dict[str, OpenCollection] = {}
        self._broken: dict[str, str] = {}  # Collections that could not be opened, and why.
        self._changing, self._background = asyncio.Lock(), Background()

    async def start(self) -> None:
        """Takes the data directory and opens every collection; one that cannot be opened hinders no other.

        Raises:
            FailedPrecondition: When another process has the data directory.
        """
        await asyncio.to_thread(self._catalog.lock)
        for name in await asyncio.to_thread(self._catalog.names):
            started = time.monotonic()
            try:
                collection = await self._start(name)
            except Exception as error:
                log.exception("collection cannot be opened", collection=name)
                self._broken[name] = str(error)
                continue
            seconds = round(time.monotonic() - started, 3)
            async with collection.using_head() as head:
                num_passages = head.dense.num_vectors
            log.info("collection opened", collection=name, passages=num_passages, seconds=seconds)

    async def close(self) -> None:
        """Closes every collection and gives the data directory back."""
        await self._background.finish()
        for collection in self._open.values():
            await collection.close()
        self._open.clear()
        await asyncio.to_thread(self._catalog.unlock)

    def has(self, name: str) -> bool:
        """Whether there is such a collection, open or broken."""
        return name in self._open or name in self._broken

    def names(self) -> list[str]:
        """The collections, open or broken, in order."""
        return sorted({*self._open, *self._broken})

    def is_open(self, name: str) -> bool:
        """Whether there is such a collection, and it is not broken."""
        return name in self._open

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[OpenCollection]:
        """The collection of this name, kept open meanwhile.

        Raises:
            NotFound: When there is none; the message names those there are.
            FailedPrecondition: When it could not be opened.
        """
        collection = await self._look_up(name)
        async with collection.in_use():
            yield collection

    async def create(self, request: CollectionRequest) -> bool:
        """Makes a collection; False when one of the same settings was there.

        Raises:
            FailedPrecondition: When there is one of other settings, or the encoder cannot be had.
            InvalidRequest: When there are as many collections as may be, or a setting is wrong.
        """
        request = replace(request, language=check_language(request.language))
        encoder = await self._encoding.encoder(request.encoder)
        settings = request.settle(encoder.info.identity, sentence_vectors=self._catalog.keeps_sentence_vectors)
        return await self._background.to_the_end(self._create(settings, request))

    async def _create(self, settings: CollectionSettings, request: CollectionRequest) -> bool:
        name = settings.name
        async with self._changing:
            if name in self._broken:
                self._find(name)
            there = self._open.get(name)
            if there is not None:
                if request.sentence_vectors is None:  # An earlier release had another default.
                    same = replace(request, sentence_vectors=there.settings.sentence_vectors)
                    settings = same.settle(settings.encoder)
                if not there.settings.is_like(settings):
                    raise FailedPrecondition(
                        f"collection {name!r} exists with other settings: drop it, or take another name",
                        reason="COLLECTION_EXISTS",
                    )
                return False
            if len(self._open) >= LIMITS.max_collections:
                raise InvalidRequest(
                    f"there are {LIMITS.max_collections} collections, the limit",
                    field="settings.name",
                    reason="TOO_MANY",
                )
            await asyncio.to_thread(self._catalog.create, settings)
            await self._start(name)
        log.info("collection created", collection=name, encoder=settings.encoder.name)
        return True

    async def configure(self, name: str, temperature: float | None, fusion: FusionChange) -> None:
        """Changes a collection's scoring; what is None stays."""
        if temperature is not None:
            check_temperature(temperature, "temperature")

        def change(settings: CollectionSettings) -> CollectionSettings:
            changed = fusion.apply(settings.fusion)
            return replace(settings, temperature=temperature or settings.temperature, fusion=changed)

        async with self.using(name) as collection:
            await collection.configure(change)

    async def drop(self, name: str) -> int:
        """Drops a collection with all its passages, after those who use it are done; returns how many it held."""
        return await self._background.to_the_end(self._drop(name))

    async def _drop(self, name: str) -> int:
        async with self._changing:
            if self._broken.pop(name, None) is not None:
                num_passages = 0
            else:
                collection = self._find(name)
                num_passages = await collection.read(self._threads, lambda reader: reader.num_passages())
                del self._open[name]
                await collection.close()
            await asyncio.to_thread(self._catalog.drop, name)
        self._metrics.forget_collection(name)
        log.info("collection dropped", collection=name, passages=num_passages)
        return num_passages

    async def describe(self, name: str) -> CollectionInfo:
        """One collection as it is now."""
        async with self.using(name) as collection:
            return await self._describe(collection)

    async def describe_all(self) -> list[CollectionInfo]:
        """Every open collection as it is now, in name order."""
        return [await self.describe(name) for name in sorted(self._open)]

    async def measure(self, name: str) -> None:
        """Brings a collection's gauges up to date."""
        async with self.using(name) as collection, collection.using_head() as head:
            counts = await head.read(
                self._threads, lambda reader: (reader.num_passages(), reader.num_sources(), reader.last_sequence())
            )
            lexical_bytes = await asyncio.to_thread(lambda: head.lexical.num_bytes)
            num_passages, num_sources, sequence = counts
            self._metrics.set_collection(name, num_passages, num_sources)
            self._metrics.set_recall(name, head.dense.measured_recall)
            self._metrics.set_index(name, head.dense.num_bytes, lexical_bytes, sequence - head.applied.sequence)

    async def _start(self, name: str) -> OpenCollection:
        collection = await asyncio.to_thread(self._catalog.open, name)
        await collection.start()
        if isinstance(collection, LiveCollection):
            await recover(collection, self._encoding)
        elif isinstance(collection, RemoteCollection):
            collection.keep_up = partial(start_following, collection, self._encoding)
        self._open[name] = collection
        await self.measure(name)
        return collection

    async def _look_up(self, name: str) -> OpenCollection:
        """The open collection; one that another retriever has made meanwhile is opened first."""
        check_collection_name(name, "collection")
        if not self.has(name) and await asyncio.to_thread(self._catalog.has, name):
            await self._background.to_the_end(self._open_found(name))
        return self._find(name)

    async def _open_found(self, name: str) -> None:
        async with self._changing:
            if not self.has(name) and await asyncio.to_thread(self._catalog.has, name):
                await self._start(name)

    def _find(self, name: str) -> OpenCollection:
        check_collection_name(name, "collection")
        if name in self._broken:
            raise FailedPrecondition(
                f"collection {name!r} could not be opened: {self._broken[name]}", reason="COLLECTION_BROKEN"
            )
        if name not in self._open:
            there = ", ".join(sorted(self._open)) or "none yet"
            raise NotFound(f"no collection {name!r}; there are: {there}", reason="COLLECTION_NOT_FOUND")
        return self._open[name]

    async def _describe(self, collection: OpenCollection) -> CollectionInfo:
        sequence = await collection.read(self._threads, lambda reader: reader.last_sequence())
        async with collection.serving() as served:
            settings, dense = served.settings, served.generation.dense

            def read(reader: Reader) -> CollectionInfo:
                return CollectionInfo(
                    settings,
                    self._encoding.info_of(settings.encoder),
                    num_passages=reader.num_passages(),
                    num_sources=reader.num_sources(),
                    sequence=sequence,
                    index_generation=served.index_generation,
                    index_digest=index_digest(reader, settings.encoder.digest),
                    index_kind=dense.kind,
                    measured_recall=dense.measured_recall,
                    created_at=float(reader.meta("created_at", "0")),
                    updated_at=float(reader.meta("updated_at", "0")),
                )

            return await served.generation.read(self._threads, read)
