"""The part of rag.v1.RetrieverService that is about collections as wholes: converts, calls, converts back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc
from retriever_service import convert_generations as convert
from retriever_service.collection import DEFAULT_COLLECTION
from retriever_service.convert_collection import collection_to
from retriever_service.library import Library
from retriever_service.maintenance import Maintenance
from serving.admission import Admission


class MaintenanceServicer(retriever_pb2_grpc.RetrieverServiceServicer):
    """Serves what changes, freezes, compares and copies collections."""

    def __init__(self, maintenance: Maintenance, library: Library, admission: Admission) -> None:
        """Takes what it serves, and the room for streams."""
        self._maintenance, self._library, self._streams = maintenance, library, admission

    async def Purge(self, request: wire.PurgeRequest, context: Any) -> wire.PurgeResponse:
        """Erases passages or sources for good."""
        purged = await self._maintenance.purge(_name(request.collection), convert.selection_from(request))
        return wire.PurgeResponse(
            num_purged=purged.num_purged, sequence=purged.sequence, rewritten_index_generations=purged.rewritten
        )

    async def PatchMetadata(self, request: wire.PatchMetadataRequest, context: Any) -> wire.PatchMetadataResponse:
        """Changes metadata fields."""
        selection, patch = convert.selection_from(request), convert.patch_from(request)
        written = await self._maintenance.patch_metadata(_name(request.collection), selection, patch)
        return wire.PatchMetadataResponse(num_patched=written.num_patched, sequence=written.sequence)

    async def CreateSnapshot(self, request: wire.CreateSnapshotRequest, context: Any) -> wire.CreateSnapshotResponse:
        """Freezes the present state."""
        snapshot = await self._maintenance.create_snapshot(_name(request.collection), request.label)
        return wire.CreateSnapshotResponse(snapshot=convert.snapshot_to(snapshot))

    async def ListSnapshots(self, request: wire.ListSnapshotsRequest, context: Any) -> wire.ListSnapshotsResponse:
        """Lists the generations, newest first."""
        found = await self._maintenance.list_snapshots(_name(request.collection))
        return wire.ListSnapshotsResponse(snapshots=[convert.snapshot_to(snapshot) for snapshot in found])

    async def ActivateSnapshot(
        self, request: wire.ActivateSnapshotRequest, context: Any
    ) -> wire.ActivateSnapshotResponse:
        """Serves another generation."""
        snapshot, previous = await self._maintenance.activate_snapshot(
            _name(request.collection), request.index_generation
        )
        return wire.ActivateSnapshotResponse(snapshot=convert.snapshot_to(snapshot), previous_index_generation=previous)

    async def DropSnapshot(self, request: wire.DropSnapshotRequest, context: Any) -> wire.DropSnapshotResponse:
        """Deletes a snapshot."""
        await self._maintenance.drop_snapshot(_name(request.collection), request.index_generation)
        return wire.DropSnapshotResponse()

    async def DiffSnapshots(
        self, request: wire.DiffSnapshotsRequest, context: Any
    ) -> AsyncIterator[wire.DiffSnapshotsResponse]:
        """Streams the passages that differ."""
        before, after = request.from_index_generation, request.to_index_generation
        with self._streams.admit():
            async for batch in self._maintenance.diff_snapshots(_name(request.collection), before, after):
                for passage_id, change in batch:
                    yield convert.difference_to(passage_id, change)

    async def ExportCollection(
        self, request: wire.ExportCollectionRequest, context: Any
    ) -> AsyncIterator[wire.ExportCollectionResponse]:
        """Streams a generation's content."""
        name, number = _name(request.collection), request.index_generation
        with self._streams.admit():
            async for described, batch in self._maintenance.export(name, number, with_vectors=request.include_vectors):
                yield convert.exported_to(described, batch)

    async def ReencodeCollection(
        self, request: wire.ReencodeCollectionRequest, context: Any
    ) -> AsyncIterator[wire.ReencodeCollectionResponse]:
        """Re-encodes, streaming progress."""
        name = _name(request.collection)
        message = wire.ReencodeCollectionResponse()
        async for progress in self._maintenance.reencode(name, request.encoder, activates=request.activate):
            message = convert.progress_to(progress)
            yield message
        info = await self._library.describe(name)
        yield wire.ReencodeCollectionResponse(
            num_encoded=message.num_encoded,
            num_total=message.num_total,
            index_generation=message.index_generation,
            collection=collection_to(info),
        )


def _name(collection: str) -> str:
    return collection or DEFAULT_COLLECTION
