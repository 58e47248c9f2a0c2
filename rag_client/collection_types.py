"""What the client gives and takes about collections, writes and the services themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from rag_client.enums import DecodingModel, FieldType, LexicalScoring, Metric
from rag_client.types import Fusion, StageTiming


@dataclass(frozen=True, slots=True)
class Source:
    """A file or URL that documents came from. The count and the moment are set by the server."""

    name: str
    digest: str = ""  #: SHA-256 (hex) of its bytes; equal digests need no new ingestion.
    num_passages: int = 0
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """The outcome for one passage of an upsert. A duplicate was kept once, as `duplicate_of`."""

    id: str
    error: Exception | None = None
    duplicate_of: str = ""


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """The outcome of an upsert: every item without an error is durable."""

    statuses: tuple[ItemStatus, ...]
    sequence: int  #: Give it as `min_sequence` to read your writes.
    num_inserted: int = 0
    num_updated: int = 0
    num_unchanged: int = 0
    num_duplicates: int = 0
    num_deleted: int = 0
    is_abridged: bool = False  #: `statuses` holds only failures and duplicates, because there are too many items.

    @property
    def failures(self) -> tuple[ItemStatus, ...]:
        """The items that were not written."""
        return tuple(status for status in self.statuses if status.error is not None)


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """The outcome of a delete."""

    num_deleted: int
    sequence: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a server has loaded."""

    name: str
    digest: str = ""
    architecture: str = ""
    dtype: str = ""
    device: str = ""
    num_parameters: int = 0
    dim: int = 0
    max_input_tokens: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """One vector per text, float32 (B, D), and the encoder that made them."""

    vectors: npt.NDArray[np.float32]
    encoder: ModelInfo
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """What a collection is made with. What is None takes the server's default."""

    name: str
    metric: Metric | str | None = None
    encoder: str = ""
    filterable_fields: Mapping[str, FieldType | str] = field(default_factory=dict)
    temperature: float | None = None
    fusion: Fusion | None = None
    lexical_scoring: LexicalScoring | str | None = None
    language: str = ""
    index_factory: str = ""
    sentence_vectors: bool | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it is now; its settings have every default filled in."""

    settings: CollectionSettings
    encoder: ModelInfo
    num_passages: int
    num_sources: int
    sequence: int
    index_generation: int
    index_digest: str
    index_kind: str
    measured_recall: float | None
    created_at: datetime | None
    updated_at: datetime | None

    @property
    def name(self) -> str:
        """Its name."""
        return self.settings.name


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in force on a server, e.g. max_top_k = 100 items."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What every service says of itself."""

    service: str
    build_version: str
    started_at: datetime | None
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class RetrieverInfo:
    """The retriever behind the gateway. `role` is "writer", "reader" or "", the last two fields a reader's."""

    service: ServiceInfo
    encoder: ModelInfo
    collections: tuple[Collection, ...]
    role: str
    writer_address: str = ""
    replication_lag_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """How the generator's checkpoint reads a task that it was taught: `template` stands in the question's place."""

    task: str
    template: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GeneratorInfo:
    """The generator behind the gateway."""

    service: ServiceInfo
    generator: ModelInfo
    prompt_format: str
    models: tuple[DecodingModel, ...]
    tasks: tuple[TaskPrompt, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayInfo:
    """The gateway and what stands behind it; a backend that does not answer is None."""

    service: ServiceInfo
    retriever: RetrieverInfo | None
    generator: GeneratorInfo | None
