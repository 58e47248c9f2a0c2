"""What is written, and what becomes of it, as values."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from retriever_service.collection import MetadataValue, Passage, Source, Vectors


class Outcome(enum.StrEnum):
    """What became of one passage."""

    INSERTED = "inserted"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class EncodedPassage:
    """A checked passage with its vector (D,), float32, and maybe its sentences' (S, D).

    `is_given` vectors came from the caller and replace another.
    """

    passage: Passage
    vector: Vectors
    is_given: bool = False
    sentences: Vectors | None = None


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of one passage; a duplicate names the passage that is kept."""

    outcome: Outcome
    duplicate_of: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A committed batch."""

    outcomes: tuple[ItemOutcome, ...]
    num_deleted: int
    sequence: int
    num_patched: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes.

    Attributes:
        passages: Written in order; the first of equal content is kept.
        sources: Recorded with their digests.
        replaced_sources: Passages of these sources that are not in `held_ids` are deleted.
        held_ids: Every id that the stream held.
        encoder_digest: Of the encoder that made the vectors; "" where that was checked already.
    """

    passages: Sequence[EncodedPassage] = ()
    sources: Sequence[Source] = ()
    replaced_sources: Sequence[str] = ()
    held_ids: frozenset[str] = field(default_factory=frozenset)
    encoder_digest: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """A change of metadata: fields set to values, and fields removed."""

    set: Mapping[str, MetadataValue] = field(default_factory=dict)
    remove: frozenset[str] = field(default_factory=frozenset)
