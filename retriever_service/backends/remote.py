"""The seam: what an engine must do to hold collections. Everything else, ranking included, is ours and shared.

An engine keeps two kinds of things per collection: documents (a passage with its vector) and records (small JSON values
that are not searched: the head, the sources). Its methods block and belong in threads; several may run at once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retriever_service.collection import CollectionSettings, Passage, Rows, Scores, Vectors
from retriever_service.filters import Filter
from serving.errors import RagError, Unimplemented


@dataclass(frozen=True, slots=True)
class Document:
    """A stored passage.

    Attributes:
        row: Identifies its content: a passage whose text changes gets a new one, never used twice in a collection.
        passage: The passage.
        vector: (D,) float32; empty where it was not asked for.
        duplicate_sources: Sources that brought the same content under another id.
    """

    row: int
    passage: Passage
    vector: Vectors
    duplicate_sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StageQuery:
    """One stage's search for one query: dense by `vector` (D,), else lexical by `text`.

    Attributes:
        count: Hits at most.
        vector: The query's vector.
        text: The query's text.
        among: Only these rows, where given; for the lexical stage.
    """

    count: int
    vector: Vectors | None = None
    text: str = ""
    among: tuple[int, ...] | None = None

    @property
    def is_asking(self) -> bool:
        """Whether there is anything to look for; a text without words finds nothing."""
        return self.vector is not None or bool(self.text)


@dataclass(frozen=True, slots=True)
class StageHits:
    """What one stage found, best first: inner products or BM25 scores in tantivy's scale, and the documents."""

    scores: Scores
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A record's value, with what the engine needs to replace just this version of it."""

    value: Mapping[str, Any]
    version: object = None


class RecordKind(enum.StrEnum):
    """What records there are: a collection's ledger and its log of changes, and a generation's sources."""

    LEDGER = "head"
    CHANGE = "change"
    SOURCE = "source"

    def of(self, number: int) -> str:
        """What the engine calls the kind in a generation: sources are a generation's own, the rest is shared."""
        return f"{self}.{number}" if self is RecordKind.SOURCE and number > 1 else str(self)


class Moved(RagError):
    """The generation takes no writes any more, or another follows it since: look again. Never reaches a caller."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine can do besides what every one can.

    Attributes:
        kind: Its name and index, as a collection's `index_kind`.
        lexical: Whether it has a lexical stage.
        tf_idf: Whether that can score by TF-IDF, too.
        is_exact: Whether its dense stage misses nothing.
        has_one_writer: Whether two retrievers must not write to one collection.
        clones: Whether it copies a generation by itself.
    """

    kind: str
    lexical: bool = True
    tf_idf: bool = True
    is_exact: bool = False
    has_one_writer: bool = False
    clones: bool = False


class RemoteStore(Protocol):
    """One generation of a collection in an engine, and the collection's ledger and log.

    Reads by id and of records see every write that has returned. The others, all of which search, see the writes
    before the last `refresh`, and perhaps later ones.
    """

    def put(self, documents: Sequence[Document]) -> None:
        """Writes documents, each replacing one of the same id; durable when it returns.

        Raises:
            Moved: When the generation is frozen.
        """
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; absent ones are no error.

        Raises:
            Moved: When the generation is frozen.
        """
        ...

    def refresh(self) -> None:
        """Returns when searches see every write that has returned."""
        ...

    def expunge(self) -> None:
        """Asks that removed documents leave the engine's files."""
        ...

    def by_ids(self, ids: Sequence[str]) -> list[Document]:
        """The documents of those ids that exist, with vectors."""
        ...

    def by_rows(self, rows: Sequence[int]) -> list[Document]:
        """The documents of those rows that exist, with vectors."""
        ...

    def by_digests(self, digests: Sequence[str]) -> list[Document]:
        """The documents of these content digests (hex), with vectors."""
        ...

    def page(self, matching: Filter | None, after: str, size: int) -> list[Document]:
        """The next documents that match in id order (bytewise), without vectors."""
        ...

    def scan(self, size: int, *, with_vectors: bool) -> Iterator[list[Document]]:
        """Every document in id order, page by page: as of the first page, where the engine can hold a state."""
        ...

    def count(self, matching: Filter | None) -> int:
        """How many match."""
        ...

    def count_by_source(self, names: Sequence[str]) -> dict[str, int]:
        """How many documents each of these sources has; none is left out."""
        ...

    def search(self, queries: Sequence[StageQuery], matching: Filter | None) -> list[StageHits]:
        """Runs all queries, in one round trip where the engine can, under the same filter."""
        ...

    def record(self, kind: RecordKind, name: str) -> Record | None:
        """One record."""
        ...

    def put_record(self, kind: RecordKind, name: str, record: Record) -> bool:
        """Writes a record. False, and nothing is written, when its `version` is no longer the stored one."""
        ...

    def updating(self) -> AbstractContextManager[Any]:
        """Held while a record is read, changed and written back; for engines whose `put_record` does not compare."""
        ...

    def put_records(self, kind: RecordKind, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes records by name, whatever was there."""
        ...

    def remove_records(self, kind: RecordKind, names: Sequence[str]) -> None:
        """Removes records; absent ones are no error."""
        ...

    def record_page(self, kind: RecordKind, prefix: str, after: str, size: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The next records in name order whose name starts with `prefix`."""
        ...

    def count_records(self, kind: RecordKind, prefix: str) -> int:
        """How many records have a name that starts with `prefix`."""
        ...


class RemoteServer(Protocol):
    """An engine: finds, makes, opens and drops collections."""

    def connect(self) -> Abilities:
        """Reaches the engine and says what it can do.

        Raises:
            NotReady: When it cannot be reached.
            Unauthenticated: When it does not accept the credentials.
        """
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...

    def names(self) -> list[str]:
        """The collections there are, in order."""
        ...

    def create(self, settings: CollectionSettings, ledger: Mapping[str, Any]) -> None:
        """Makes an empty collection where there is none; complete when its ledger is written, which comes last."""
        ...

    def open(self, settings: CollectionSettings, number: int) -> RemoteStore:
        """A generation of an existing collection; the settings are the generation's."""
        ...

    def ledger(self, name: str) -> Mapping[str, Any] | None:
        """The ledger of a collection; None where there is none."""
        ...

    def drop(self, name: str) -> None:
        """Removes a collection with every generation, its ledger first."""
        ...

    def make(self, settings: CollectionSettings, number: int) -> None:
        """Makes a generation without documents; whatever has its number is removed first."""
        ...

    def clone(self, name: str, source: int, number: int) -> None:
        """Makes a generation that holds what a frozen one does. Only where the engine `clones`.

        Raises:
            FailedPrecondition: When the engine cannot do it now; the message says why.
        """
        ...

    def freeze(self, name: str, number: int) -> None:
        """Returns when nobody can write to a generation; what had begun is done. Nothing where one writer rules."""
        ...

    def thaw(self, name: str, number: int) -> None:
        """The inverse of `freeze`."""
        ...

    def point(self, name: str, number: int) -> None:
        """Makes the collection's alias name this generation instead of another, in one step."""
        ...

    def remove(self, name: str, number: int) -> None:
        """Removes a generation's documents; an absent one is no error."""
        ...


def refuse(kind: str, what: str, instead: str) -> Unimplemented:
    """The error for what a backend cannot do."""
    return Unimplemented(f"the {kind} backend has no {what}: {instead}", reason="BACKEND_LACKS_IT")


def pages(store: RemoteStore, matching: Filter | None, size: int = 1_000) -> Iterator[list[Document]]:
    """Every document that matches, page by page in id order."""
    after = ""
    while found := store.page(matching, after, size):
        yield found
        after = found[-1].passage.id


def rows_of(documents: Sequence[Document]) -> Rows:
    """The documents' rows (N,)."""
    return np.array([one.row for one in documents], np.int64)
