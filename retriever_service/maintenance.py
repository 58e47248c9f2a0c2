"""What is done to a collection as a whole: metadata changed, content erased, frozen, compared, exported, re-encoded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import islice

from retriever_service import exporting, snapshots
from retriever_service.batch import Patch, Written
from retriever_service.collection import check_metadata
from retriever_service.encoding import Encoding
from retriever_service.exporting import Exported
from retriever_service.library import Library
from retriever_service.lifecycle import lifecycle_of
from retriever_service.limits import LIMITS, check_count
from retriever_service.metrics import RetrieverMetrics
from retriever_service.purging import Purged
from retriever_service.reencoding import Progress
from retriever_service.selection import Selection
from retriever_service.snapshots import Change, Snapshot
from retriever_service.store import Reader
from retriever_service.streaming import Give, delivered, ended_by, scan
from serving.errors import InvalidRequest

_DIFFERENCES_PER_STEP = 512

Differences = list[tuple[str, Change]]


class Maintenance:
    """Changes collections as wholes. For one event loop."""

    def __init__(self, library: Library, encoding: Encoding, metrics: RetrieverMetrics) -> None:
        """Takes the open collections, the encoders, and who is told what happens."""
        self._library, self._encoding, self._metrics = library, encoding, metrics

    async def patch_metadata(self, name: str, selection: Selection, patch: Patch) -> Written:
        """Sets and removes metadata fields of the selected passages; durable, and seen by filters, when it returns.

        Raises:
            InvalidRequest: When nothing is asked for, or a value is wrong for its field.
        """
        if not patch.set and not patch.remove:
            raise InvalidRequest("nothing to change: give set or remove", field="set")
        if both := sorted(patch.set.keys() & patch.remove):
            raise InvalidRequest(f"field {both[0]!r} is both set and removed", field="remove")
        check_count(len(patch.remove), LIMITS.max_metadata_fields, "remove")
        async with self._library.using(name) as collection:
            fields = collection.settings.filterable_fields
            checked = replace(patch, set=check_metadata(patch.set, fields, "set"))
            return await collection.patch(selection.condition(fields), checked)

    async def purge(self, name: str, selection: Selection) -> Purged:
        """Erases passages or sources from every generation; they are in none of its files when it returns."""
        check_count(len(selection.ids) + len(selection.sources), LIMITS.max_delete_ids, "selector", minimum=1)
        async with self._library.using(name) as collection:
            purged = await lifecycle_of(collection).purge(selection)
        self._metrics.count_deleted(name, purged.num_purged)
        await self._library.measure(name)
        return purged

    async def create_snapshot(self, name: str, label: str) -> Snapshot:
        """Freezes a collection's present state."""
        async with self._library.using(name) as collection:
            return await lifecycle_of(collection).create_snapshot(label)

    async def list_snapshots(self, name: str) -> list[Snapshot]:
        """Every generation of a collection, newest first."""
        async with self._library.using(name) as collection:
            return await lifecycle_of(collection).list_snapshots()

    async def activate_snapshot(self, name: str, index_generation: int) -> tuple[Snapshot, int]:
        """Serves a generation from now on; returns it and the number of the one before."""
        async with self._library.using(name) as collection:
            return await lifecycle_of(collection).activate(index_generation, self._encoding)

    async def drop_snapshot(self, name: str, index_generation: int) -> None:
        """Deletes a snapshot that is not served."""
        async with self._library.using(name) as collection:
            await lifecycle_of(collection).drop_snapshot(index_generation)

    async def diff_snapshots(self, name: str, before: int, after: int) -> AsyncIterator[Differences]:
        """The passages that differ between two generations (0 is the active one), in id order, in batches.

        Raises:
            FailedPrecondition: When one of them is to be closed, and the taker is slow.
        """

        async def read(give: Give[Differences]) -> None:
            async with (
                self._library.using(name) as collection,
                collection.serving(before) as old,
                collection.serving(after) as new,
                ended_by([collection.users, old.generation.users, new.generation.users]),
                aclosing(scan((old.generation, new.generation), _differences)) as batches,
            ):
                async for batch in batches:
                    await give(batch)

        async for batch in delivered(read):
            yield batch

    async def export(
        self, name: str, index_generation: int, *, with_vectors: bool
    ) -> AsyncIterator[tuple[Snapshot | None, Exported]]:
        """A generation's content (0 is the active one), as it was when the call came; first with what it is.

        Raises:
            FailedPrecondition: When it is to be closed, and the taker is slow.
        """

        async def read(give: Give[tuple[Snapshot | None, Exported]]) -> None:
            async with self._library.using(name) as collection, collection.serving(index_generation) as served:
                digest = served.settings.encoder.digest
                reading = partial(exporting.export, encoder_digest=digest, with_vectors=with_vectors)
                described = await lifecycle_of(collection).describe(served.index_generation)
                async with (
                    ended_by([collection.users, served.generation.users]),
                    aclosing(scan((served.generation,), reading)) as batches,
                ):
                    async for batch in batches:
                        await give((_exact(described, batch) if batch.index_digest else None, batch))

        async for exported in delivered(read):
            yield exported

    async def reencode(self, name: str, encoder: str, *, activates: bool) -> AsyncIterator[Progress]:
        """Builds a generation with another encoder's vectors, telling how far it is."""
        async with (
            self._library.using(name) as collection,
            aclosing(lifecycle_of(collection).reencode(self._encoding, encoder, activates=activates)) as steps,
        ):
            async for progress in steps:
                yield progress
        await self._library.measure(name)


def _exact(described: Snapshot, first: Exported) -> Snapshot:
    """What a generation is as of the first batch of its content."""
    return replace(described, sequence=first.sequence, num_passages=first.num_total, digest=first.index_digest)


def _differences(before: Reader, after: Reader) -> Iterator[Differences]:
    found = snapshots.differences(before, after)
    while batch := list(islice(found, _DIFFERENCES_PER_STEP)):
        yield batch
