"""Between the wire and the domain: selections, patches, snapshots, differences, exports, progress."""

from __future__ import annotations

from collections.abc import Sequence

from protos.rag.v1 import retriever_pb2 as wire
from retriever_service import convert
from retriever_service.batch import Patch
from retriever_service.exporting import Exported
from retriever_service.reencoding import Progress
from retriever_service.selection import Selection
from retriever_service.snapshots import Change, Snapshot
from retriever_service.store import StoredPassage
from serving.errors import InvalidRequest

_CHANGES = {
    Change.ADDED: wire.DiffSnapshotsResponse.CHANGE_ADDED,
    Change.REMOVED: wire.DiffSnapshotsResponse.CHANGE_REMOVED,
    Change.CHANGED: wire.DiffSnapshotsResponse.CHANGE_CHANGED,
}


def selection_from(message: wire.DeleteRequest | wire.PatchMetadataRequest | wire.PurgeRequest) -> Selection:
    """Which passages a request is about.

    Raises:
        InvalidRequest: When it does not say, or names too many.
    """
    match message.WhichOneof("selector"):
        case "ids":
            return Selection(ids=tuple(message.ids.ids))
        case "sources":
            return Selection(sources=tuple(message.sources.names))
        case "filter":
            assert not isinstance(message, wire.PurgeRequest)
            return Selection(matching=convert.filter_from(message.filter))
    choice = "ids or sources" if isinstance(message, wire.PurgeRequest) else "ids, sources or a filter"
    raise InvalidRequest(f"selector is missing: give {choice}", field="selector")


def patch_from(message: wire.PatchMetadataRequest) -> Patch:
    """A change of metadata."""
    values = {name: convert.value_from(value, f"set[{name}]") for name, value in message.set.items()}
    return Patch(values, frozenset(message.remove))


def snapshot_to(snapshot: Snapshot) -> wire.Snapshot:
    """A generation on the wire."""
    return wire.Snapshot(
        collection=snapshot.collection,
        index_generation=snapshot.index_generation,
        label=snapshot.label,
        sequence=snapshot.sequence,
        num_passages=snapshot.num_passages,
        digest=snapshot.digest,
        encoder_digest=snapshot.encoder_digest,
        active=snapshot.is_active,
        created_at=convert.timestamp_to(snapshot.created_at),
        live=snapshot.is_live,
    )


def difference_to(passage_id: str, change: Change) -> wire.DiffSnapshotsResponse:
    """One passage that differs, on the wire."""
    return wire.DiffSnapshotsResponse(passage_id=passage_id, change=_CHANGES[change])


def exported_to(described: Snapshot | None, batch: Exported) -> wire.ExportCollectionResponse:
    """A batch of an export on the wire."""
    return wire.ExportCollectionResponse(
        passages=_upserts_to(batch.passages),
        sources=[convert.source_to(source) for source in batch.sources],
        num_total=batch.num_total,
        snapshot=None if described is None else snapshot_to(described),
    )


def progress_to(progress: Progress) -> wire.ReencodeCollectionResponse:
    """How far a re-encoding is, on the wire."""
    return wire.ReencodeCollectionResponse(
        num_encoded=progress.num_encoded,
        num_total=progress.num_total,
        index_generation=progress.index_generation,
    )


def _upserts_to(stored: Sequence[StoredPassage]) -> list[wire.PassageUpsert]:
    return [
        wire.PassageUpsert(
            passage=convert.passage_to(one.passage),
            vector=None if one.vector is None else convert.vector_to(one.vector),
        )
        for one in stored
    ]
