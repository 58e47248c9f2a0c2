"""What is done to a collection's generations: frozen, activated, compared, dropped, re-encoded, purged."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from retriever_service import purging, reencoding, snapshots
from retriever_service.backends.collection import RemoteCollection
from retriever_service.backends.lifecycle import RemoteLifecycle
from retriever_service.backends.protocol import OpenCollection, local
from retriever_service.encoding import Encoding
from retriever_service.generations import Erasure
from retriever_service.live_collection import LiveCollection
from retriever_service.purging import Purged
from retriever_service.reencoding import Progress
from retriever_service.selection import Selection
from retriever_service.snapshots import Snapshot


class Lifecycle(Protocol):
    """The same on every backend; one that cannot do a thing refuses it by name."""

    async def create_snapshot(self, label: str) -> Snapshot:
        """Freezes the head's present state."""
        ...

    async def list_snapshots(self) -> list[Snapshot]:
        """Every generation, newest first."""
        ...

    async def describe(self, number: int) -> Snapshot:
        """One generation as it is now."""
        ...

    async def activate(self, number: int, encoding: Encoding) -> tuple[Snapshot, int]:
        """Serves a generation from now on; returns it and the number of the one before."""
        ...

    async def drop_snapshot(self, number: int) -> None:
        """Deletes a generation that is neither served nor takes the writes."""
        ...

    def reencode(self, encoding: Encoding, encoder_name: str, *, activates: bool) -> AsyncGenerator[Progress, None]:
        """Builds a generation with another encoder's vectors, telling how far it is."""
        ...

    async def purge(self, selection: Selection) -> Purged:
        """Erases passages or sources from every generation."""
        ...


class LocalLifecycle:
    """The generations of a collection in local files."""

    def __init__(self, collection: LiveCollection) -> None:
        """Takes the collection."""
        self._collection = collection

    async def create_snapshot(self, label: str) -> Snapshot:
        """Freezes the head's present state."""
        return await snapshots.create_snapshot(self._collection, label)

    async def list_snapshots(self) -> list[Snapshot]:
        """Every generation, newest first."""
        return await snapshots.list_snapshots(self._collection)

    async def describe(self, number: int) -> Snapshot:
        """One generation as it is now."""
        return await snapshots.describe_generation(self._collection, number)

    async def activate(self, number: int, encoding: Encoding) -> tuple[Snapshot, int]:
        """Serves a generation from now on; returns it and the number of the one before."""
        return await snapshots.activate(self._collection, number, encoding)

    async def drop_snapshot(self, number: int) -> None:
        """Deletes a generation that is neither served nor takes the writes."""
        await snapshots.drop_snapshot(self._collection, number)

    def reencode(self, encoding: Encoding, encoder_name: str, *, activates: bool) -> AsyncGenerator[Progress, None]:
        """Builds a generation with another encoder's vectors, telling how far it is."""
        return reencoding.reencode(self._collection, encoding, encoder_name, activates=activates)

    async def purge(self, selection: Selection) -> Purged:
        """Erases passages or sources from every generation."""
        return await purging.purge(self._collection, Erasure(tuple(selection.ids), tuple(selection.sources)))


def lifecycle_of(collection: OpenCollection) -> Lifecycle:
    """What its backend does."""
    if isinstance(collection, RemoteCollection):
        return RemoteLifecycle(collection)
    return LocalLifecycle(local(collection, "generations"))
