"""The calls about collections as wholes, as data; see `rag_client.calls`."""

from collections.abc import Mapping, Sequence
from typing import Any

from protos.rag.v1 import retriever_pb2
from rag_client import collection_convert, convert, maintenance_types, wire
from rag_client.calls import Call, select
from rag_client.filters import Filter
from rag_client.types import EmbeddedPassage, Value


def patch_metadata(
    collection: str,
    ids: Sequence[str] | None,
    sources: Sequence[str] | None,
    condition: Filter | None,
    values: Mapping[str, Value],
    remove: Sequence[str],
) -> Call[maintenance_types.PatchResult]:
    """Set and remove metadata fields."""
    given = {name: wire.value_message(name, value) for name, value in values.items()}
    request = retriever_pb2.PatchMetadataRequest(collection=collection, set=given, remove=remove)
    select(request, ids, sources, condition)

    def read(reply: retriever_pb2.PatchMetadataResponse) -> maintenance_types.PatchResult:
        return maintenance_types.PatchResult(reply.num_patched, reply.sequence)

    return Call("retriever", "PatchMetadata", request, read)


def purge(
    collection: str, ids: Sequence[str] | None, sources: Sequence[str] | None
) -> Call[maintenance_types.PurgeResult]:
    """Erase for good."""
    request = retriever_pb2.PurgeRequest(collection=collection)
    select(request, ids, sources, None)

    def read(reply: retriever_pb2.PurgeResponse) -> maintenance_types.PurgeResult:
        rewritten = tuple(reply.rewritten_index_generations)
        return maintenance_types.PurgeResult(reply.num_purged, reply.sequence, rewritten)

    return Call("retriever", "Purge", request, read)


def create_snapshot(collection: str, label: str) -> Call[maintenance_types.Snapshot]:
    """Freeze the present state."""
    request = wire.message(retriever_pb2.CreateSnapshotRequest, {"collection": collection, "label": label})
    return Call("retriever", "CreateSnapshot", request, lambda reply: _snapshot(reply.snapshot))


def list_snapshots(collection: str) -> Call[list[maintenance_types.Snapshot]]:
    """All generations."""
    request = wire.message(retriever_pb2.ListSnapshotsRequest, {"collection": collection})
    return Call("retriever", "ListSnapshots", request, lambda reply: list(map(_snapshot, reply.snapshots)))


def activate_snapshot(collection: str, index_generation: int) -> Call[maintenance_types.Activation]:
    """Serve another generation."""
    fields = {"collection": collection, "index_generation": index_generation}
    request = wire.message(retriever_pb2.ActivateSnapshotRequest, fields)

    def read(reply: retriever_pb2.ActivateSnapshotResponse) -> maintenance_types.Activation:
        return maintenance_types.Activation(_snapshot(reply.snapshot), reply.previous_index_generation)

    return Call("retriever", "ActivateSnapshot", request, read)


def drop_snapshot(collection: str, index_generation: int) -> Call[None]:
    """Delete a snapshot."""
    fields = {"collection": collection, "index_generation": index_generation}
    request = wire.message(retriever_pb2.DropSnapshotRequest, fields)
    return Call("retriever", "DropSnapshot", request, lambda reply: None)


def diff_snapshots(collection: str, before: int, after: int) -> Call[maintenance_types.Difference | None]:
    """Stream the passages that differ."""
    fields = {"collection": collection, "from_index_generation": before, "to_index_generation": after}
    request = wire.message(retriever_pb2.DiffSnapshotsRequest, fields)
    kinds = retriever_pb2.DiffSnapshotsResponse.Change

    def read(reply: retriever_pb2.DiffSnapshotsResponse) -> maintenance_types.Difference | None:
        change = convert.choice(maintenance_types.Change, kinds, "CHANGE_", reply.change)
        return None if change is None else maintenance_types.Difference(reply.passage_id, change)

    return Call("retriever", "DiffSnapshots", request, read)


def export_collection(
    collection: str, index_generation: int, *, include_vectors: bool
) -> Call[maintenance_types.ExportBatch | None]:
    """Stream a collection's content."""
    fields = {"collection": collection, "index_generation": index_generation, "include_vectors": include_vectors}
    request = wire.message(retriever_pb2.ExportCollectionRequest, fields)
    return Call("retriever", "ExportCollection", request, _export_batch)


def reencode_collection(
    collection: str, encoder: str, *, activate: bool
) -> Call[maintenance_types.ReencodingProgress | None]:
    """Re-encode, streaming progress."""
    fields = {"collection": collection, "encoder": encoder, "activate": activate}
    request = wire.message(retriever_pb2.ReencodeCollectionRequest, fields)

    def read(reply: retriever_pb2.ReencodeCollectionResponse) -> maintenance_types.ReencodingProgress:
        collection = collection_convert.collection(reply.collection) if reply.HasField("collection") else None
        return maintenance_types.ReencodingProgress(
            reply.num_encoded, reply.num_total, reply.index_generation, collection
        )

    return Call("retriever", "ReencodeCollection", request, read)


def _snapshot(message: retriever_pb2.Snapshot) -> maintenance_types.Snapshot:
    return maintenance_types.Snapshot(
        collection=message.collection,
        index_generation=message.index_generation,
        label=message.label,
        sequence=message.sequence,
        num_passages=message.num_passages,
        digest=message.digest,
        encoder_digest=message.encoder_digest,
        is_active=message.active,
        is_live=message.live,
        created_at=convert.moment(message.created_at),
    )


def _export_batch(message: retriever_pb2.ExportCollectionResponse) -> maintenance_types.ExportBatch:
    return maintenance_types.ExportBatch(
        passages=tuple(map(_exported, message.passages)),
        sources=tuple(map(collection_convert.source, message.sources)),
        num_total=message.num_total,
        snapshot=_snapshot(message.snapshot) if message.HasField("snapshot") else None,
    )


def _exported(message: Any) -> Any:
    passage = convert.passage(message.passage)
    return EmbeddedPassage(passage, convert.vector(message.vector)) if message.HasField("vector") else passage
