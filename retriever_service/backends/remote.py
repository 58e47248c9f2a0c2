"""The seam: what an engine must do to hold collections. Everything else, ranking included, is ours and shared.

An engine keeps two kinds of things per collection: documents (a passage with its vector) and records (small JSON values
that are not searched: the head, the sources). Its methods block and belong in threads; several may run at once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retriever_service.collection import CollectionSettings, Passage, Rows, Scores, Vectors
from retriever_service.filters import Filter
from serving.errors import Unimplemented


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
    """What records there are: one head per collection, and one record per source."""

    HEAD = "head"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine can do besides what every one can.

    Attributes:
        kind: Its name and index, as a collection's `index_kind`.
        lexical: Whether it has a lexical stage.
        tf_idf: Whether that can score by TF-IDF, too.
        is_exact: Whether its dense stage misses nothing.
        has_one_writer: Whether two retrievers must not write to one collection.
    """

    kind: str
    lexical: bool = True
    tf_idf: bool = True
    is_exact: bool = False
    has_one_writer: bool = False


class RemoteStore(Protocol):
    """One collection in an engine.

    Reads by id and of records see every write that has returned. The others, all of which search, see the writes
    before the last `refresh`, and perhaps later ones.
    """

    def put(self, documents: Sequence[Document]) -> None:
        """Writes documents, each replacing one of the same id; durable when it returns."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; absent ones are no error."""
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

    def put_sources(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes records of sources, whatever was there."""
        ...

    def remove_sources(self, names: Sequence[str]) -> None:
        """Removes records of sources."""
        ...

    def source_page(self, prefix: str, after: str, size: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The next records of sources in name order whose name starts with `prefix`."""
        ...

    def count_sources(self, prefix: str) -> int:
        """How many records of sources have a name that starts with `prefix`."""
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

    def create(self, settings: CollectionSettings, head: Mapping[str, Any]) -> None:
        """Makes an empty collection where there is none; complete when its head is written, which comes last."""
        ...

    def open(self, settings: CollectionSettings) -> RemoteStore:
        """An existing collection."""
        ...

    def head(self, name: str) -> Mapping[str, Any] | None:
        """The head of a collection; None where there is none."""
        ...

    def drop(self, name: str) -> None:
        """Removes a collection, its head first."""
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
