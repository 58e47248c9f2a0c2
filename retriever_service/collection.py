"""What a collection is made of: settings, passages, sources and vectors, as values that know no storage."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from retriever_service.fusion import Fusion, FusionChange
from retriever_service.limits import LIMITS, check_count, check_text
from serving.errors import InvalidRequest

Vectors = npt.NDArray[np.float32]  # (N, D) or (D,)
Rows = npt.NDArray[np.int64]  # Row numbers: the store's keys, never used twice in a collection.
Scores = npt.NDArray[np.float64]

MetadataValue = str | int | float | bool | tuple[str, ...]

_COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_BUILT_IN_FIELDS = ("id", "source")

DEFAULT_COLLECTION = "default"


class Metric(enum.StrEnum):
    """How embeddings are compared."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"


class LexicalScoring(enum.StrEnum):
    """How the lexical stage scores."""

    BM25 = "bm25"
    TF_IDF = "tf_idf"


class FieldType(enum.StrEnum):
    """Type of a filterable metadata field."""

    STRING = "string"
    INT = "int"
    DOUBLE = "double"
    BOOL = "bool"


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """Which encoder made a collection's vectors; two with equal digests give equal vectors."""

    name: str
    digest: str
    dim: int
    is_normalising: bool


@dataclass(frozen=True, slots=True)
class CollectionRequest:
    """A collection as asked for: what is None takes the encoder's or the server's default."""

    name: str
    metric: Metric | None = None
    encoder: str = ""
    filterable_fields: Mapping[str, FieldType] = field(default_factory=dict)
    temperature: float | None = None
    fusion: FusionChange = field(default_factory=FusionChange)
    index_factory: str = ""
    lexical_scoring: LexicalScoring = LexicalScoring.BM25
    language: str = "english"
    sentence_vectors: bool | None = None

    def __post_init__(self) -> None:
        check_collection_name(self.name)
        check_count(len(self.filterable_fields), LIMITS.max_filterable_fields, "settings.filterable_fields")
        for name in self.filterable_fields:
            if not _FIELD_NAME.fullmatch(name) or name in _BUILT_IN_FIELDS:
                raise InvalidRequest(
                    f"filterable field {name!r} must match [A-Za-z_][A-Za-z0-9_]*, be at most 64 bytes long, and not "
                    "be 'id' or 'source', which always are filterable",
                    field="settings.filterable_fields",
                )
        if self.temperature is not None:
            check_temperature(self.temperature, "settings.temperature")

    def settle(self, encoder: EncoderIdentity, *, sentence_vectors: bool = False) -> CollectionSettings:
        """The settings with every default filled in.

        Args:
            encoder: The one asked for, or the server's.
            sentence_vectors: The server's default, for encoders that were trained to tell texts of any length apart:
                those with bounded scores.
        """
        metric = self.metric or (Metric.COSINE if encoder.is_normalising else Metric.INNER_PRODUCT)
        is_bounded = metric is Metric.COSINE or encoder.is_normalising
        has_sentences = sentence_vectors and is_bounded if self.sentence_vectors is None else self.sentence_vectors
        fusion = SENTENCE_FUSION if has_sentences else Fusion()
        return CollectionSettings(
            name=self.name,
            metric=metric,
            encoder=encoder,
            follows_server_encoder=not self.encoder,
            filterable_fields=dict(self.filterable_fields),
            temperature=self.temperature or (COSINE_TEMPERATURE if is_bounded else INNER_PRODUCT_TEMPERATURE),
            fusion=self.fusion.apply(fusion if is_bounded else INNER_PRODUCT_FUSION),
            lexical_scoring=self.lexical_scoring,
            index_factory=self.index_factory,
            language=self.language,
            sentence_vectors=has_sentences,
        )


# For all-MiniLM-L6-v2 with linear fusion, on SQuAD: 1/20 gave the best answers end to end (EM 45.8; 44.2 at 1/10,
# 45.2 at 1/40); the likelihood of the gold passage among the top 5 alone is best at 1/13 (0.458 nats; 0.500 at 1/20).
COSINE_TEMPERATURE = 0.05
# Best sentences need less help from words. By train questions whose passages no training saw, and by the sample.
SENTENCE_FUSION = Fusion(lexical_weight=0.02)
# An encoder trained with a softmax over plain inner products has its temperature built in.
INNER_PRODUCT_TEMPERATURE = 1.0
# BM25 + 1.1 * similarity. Source: Karpukhin et al. 2020 (arXiv 2004.04906), section 5.1.
INNER_PRODUCT_FUSION = Fusion(dense_weight=1.0, lexical_weight=1 / 1.1)


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """A collection's settings.

    Attributes:
        name: Its name.
        metric: How embeddings are compared.
        encoder: Whose vectors it holds.
        follows_server_encoder: No encoder was named when it was made: it wants the server's default encoder, or one
            that the server may load besides, to be the one that made its vectors.
        filterable_fields: What filters may name besides `id` and `source`.
        temperature: tau in log p(d|x) = log_softmax(score / tau).
        fusion: How the dense and the lexical result become one ranking.
        language: Of the lexical stage's stemming, or "none".
        lexical_scoring: How the lexical stage scores.
        index_factory: FAISS factory string of the dense index; "" is chosen by size.
        sentence_vectors: Whether passages that the server encodes have vectors of their sentences, too.
    """

    name: str
    metric: Metric
    encoder: EncoderIdentity
    follows_server_encoder: bool
    filterable_fields: Mapping[str, FieldType]
    temperature: float
    fusion: Fusion
    language: str
    lexical_scoring: LexicalScoring = LexicalScoring.BM25
    index_factory: str = ""
    sentence_vectors: bool = False

    def is_like(self, other: CollectionSettings) -> bool:
        """Whether both ask for the same collection."""
        return replace(self, encoder=other.encoder) == other and self.encoder.digest == other.encoder.digest


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters in a source's extracted text; `page` counts from 1, 0 without pages."""

    start_char: int
    end_char: int
    page: int = 0


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is retrieved and cited. `sequence` is the change-log number of its last write; 0 if unwritten."""

    id: str
    title: str
    text: str
    source: str = ""
    span: Span | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sequence: int = 0

    @property
    def content_digest(self) -> str:
        """SHA-256 (hex) of title, a zero byte, and text. Passages equal in it are duplicates."""
        return hashlib.sha256(f"{self.title}\0{self.text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Source:
    """A file or URL that passages came from. `updated_at` is Unix time in seconds."""

    name: str
    digest: str = ""
    num_passages: int = 0
    updated_at: float = 0.0


def check_collection_name(name: str, field: str = "settings.name") -> str:
    """The name itself when it is one.

    Raises:
        InvalidRequest: When it is not.
    """
    if not _COLLECTION_NAME.fullmatch(name):
        raise InvalidRequest(
            f"collection name {name!r} must match [a-z0-9][a-z0-9_-]* and be at most 64 bytes long", field=field
        )
    return name


def check_temperature(temperature: float, field: str) -> float:
    """The temperature itself when it is finite and above 0."""
    if not (np.isfinite(temperature) and temperature > 0):
        raise InvalidRequest(f"{field} must be a finite number above 0, not {temperature}", field=field)
    return temperature


def check_passage(passage: Passage, filterable_fields: Mapping[str, FieldType]) -> Passage:
    """The passage, its filterable numbers widened to their declared type.

    Raises:
        InvalidRequest: When a field is over its limit or a filterable field holds another type than declared.
    """
    check_text(passage.id, LIMITS.max_id_bytes, "passage.id", may_be_empty=False)
    check_text(passage.title, LIMITS.max_title_bytes, "passage.title")
    check_text(passage.text, LIMITS.max_text_bytes, "passage.text", may_be_empty=False)
    check_text(passage.source, LIMITS.max_source_bytes, "passage.source")
    if passage.span is not None and passage.span.end_char < passage.span.start_char:
        raise InvalidRequest("passage.span ends before it starts", field="passage.span")
    return replace(passage, metadata=check_metadata(passage.metadata, filterable_fields, "passage.metadata"))


def check_metadata(
    metadata: Mapping[str, MetadataValue], filterable_fields: Mapping[str, FieldType], field: str
) -> dict[str, MetadataValue]:
    """The metadata, its filterable numbers widened to their declared type.

    Raises:
        InvalidRequest: When a value is over its limit or a filterable field holds another type than declared.
    """
    check_count(len(metadata), LIMITS.max_metadata_fields, field)
    checked = {name: _check_value(name, value, field) for name, value in metadata.items()}
    for name in checked.keys() & filterable_fields.keys():
        checked[name] = check_type(name, checked[name], filterable_fields[name], f"{field}[{name}]")
    return checked


def check_type(name: str, value: MetadataValue, declared: FieldType, field: str) -> MetadataValue:
    """The value as its field's declared type; integers are widened to double.

    Raises:
        InvalidRequest: When it is of another type.
    """
    match declared, value:
        case (FieldType.BOOL, bool()):
            return value
        case (FieldType.INT, int()) if not isinstance(value, bool):
            return value
        case (FieldType.DOUBLE, int() | float()) if not isinstance(value, bool):
            return float(value)
        case (FieldType.STRING, str() | tuple()):
            return value
    kind = "list of strings" if isinstance(value, tuple) else type(value).__name__
    raise InvalidRequest(f"field {name!r} is declared {declared}; the value given is a {kind}", field=field)


def _check_value(name: str, value: MetadataValue, field: str) -> MetadataValue:
    where = f"{field}[{name}]"
    check_text(name, LIMITS.max_metadata_name_bytes, field, may_be_empty=False)
    if isinstance(value, str):
        check_text(value, LIMITS.max_string_value_bytes, where)
    elif isinstance(value, tuple):
        check_count(len(value), LIMITS.max_list_values, where)
        for element in value:
            check_text(element, LIMITS.max_string_value_bytes, where)
    elif isinstance(value, float) and not np.isfinite(value):
        raise InvalidRequest(f"{where} is not finite", field=where)
    return value
