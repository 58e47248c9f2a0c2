"""What the client gives about collections as wholes: patches, purges, snapshots, differences, exports, progress."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rag_client.collection_types import Collection, Source
from rag_client.types import EmbeddedPassage, Passage


@dataclass(frozen=True, slots=True)
class PatchResult:
    """The outcome of a metadata change; passages that had the values already are not counted."""

    num_patched: int
    sequence: int


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """The outcome of an erasure."""

    num_purged: int
    sequence: int
    rewritten_index_generations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An index generation; a live one takes the writes, or follows the one that does."""

    collection: str
    index_generation: int
    label: str
    sequence: int
    num_passages: int
    digest: str
    encoder_digest: str
    is_active: bool
    is_live: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Activation:
    """The generation that is served now, and the number of the one before."""

    snapshot: Snapshot
    previous_index_generation: int


class Change(StrEnum):
    """What happened to a passage between two generations."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A passage that differs between two generations."""

    passage_id: str
    change: Change


@dataclass(frozen=True, slots=True, eq=False)
class ExportBatch:
    """A batch of a collection's content; the first says what is exported. Vectors come where they were asked for."""

    passages: tuple[Passage | EmbeddedPassage, ...]
    sources: tuple[Source, ...]
    num_total: int
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class ReencodingProgress:
    """How far a re-encoding is; the last has the collection as it is then."""

    num_encoded: int
    num_total: int
    index_generation: int
    collection: Collection | None = None
