"""The source of truth of one index generation: an SQLite file. Reading; `writing` holds what changes it."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retriever_service import schema
from retriever_service.collection import MetadataValue, Passage, Rows, Source, Span, Vectors
from retriever_service.filters import Condition
from retriever_service.neighbors import rows_beside
from retriever_service.row_sets import RowSets
from retriever_service.stored_vectors import passage_vectors_from, stack, stack_sentences, vector_from
from retriever_service.vectors import PassageVectors, SentenceVectors

_MAX_PAGE_CHARS = 2 * 1024 * 1024  # So that a page fits into a message.
_MAX_ROW, _VECTORS_PER_BATCH = (1 << 63) - 1, 8_192
EVERYTHING = Condition("TRUE", ())
_PASSAGE = "id, title, text, source, start_char, end_char, page, metadata, sequence"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change log."""

    sequence: int
    row: int
    operation: str  # added | removed | patched


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage, with its vector (D,) when asked for."""

    passage: Passage
    vector: Vectors | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing. `next_after` is the last key, or "" on the last page."""

    items: tuple[Any, ...]
    next_after: str
    num_total: int


class Store:
    """One generation's file. Any thread may read; each has a connection of its own."""

    def __init__(self, path: Path, *, is_frozen: bool = False) -> None:
        """Opens an existing file, migrating it when it is of an older format and not frozen.

        Args:
            path: The file.
            is_frozen: Nobody changes the file any more: it is read without locks, and never written.

        Raises:
            FailedPrecondition: When the file is of another format than it can be brought to.
        """
        self.path, self._is_frozen = path, is_frozen
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._row_sets = RowSets()
        if not is_frozen:
            schema.migrate(self.connection(), path)

    @classmethod
    def create(cls, path: Path) -> Store:
        """Makes a new, empty file."""
        with closing(schema.connect(path)) as connection:
            schema.create(connection)
        return cls(path)

    def connection(self) -> sqlite3.Connection:
        """The calling thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        return schema.connect_frozen(self.path) if self._is_frozen else schema.connect(self.path)

    def close(self) -> None:
        """Closes every thread's connection; nobody may use the store any more."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """One consistent state, unmoved by writes that come meanwhile. Not nested."""
        connection = self.connection()
        connection.execute("BEGIN")
        try:
            yield Reader(connection, self._row_sets)
        finally:
            connection.execute("COMMIT")

    @contextmanager
    def scanning(self) -> Iterator[Reader]:
        """The same for a long read: with a connection of its own, closed when done."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield Reader(connection)


class Reader:
    """Reads one state of a collection."""

    def __init__(self, connection: sqlite3.Connection, row_sets: RowSets | None = None) -> None:
        self._connection, self._row_sets = connection, row_sets or RowSets(0)

    def meta(self, key: str, default: str = "") -> str:
        """A value of the collection itself."""
        found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else default

    def last_sequence(self) -> int:
        """Number of the last change; 0 before the first."""
        found = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
        return int(found[0]) if found else 0

    def num_passages(self, condition: Condition = EVERYTHING) -> int:
        """Passages that match."""
        sql = f"SELECT count(*) FROM passages p WHERE {condition.sql}"
        return int(self._connection.execute(sql, condition.parameters).fetchone()[0])

    def known_sources(self, names: Sequence[str]) -> list[str]:
        """Those of the names that are recorded anywhere."""
        sql = f"SELECT name FROM ({_SOURCE_NAMES} UNION SELECT source FROM duplicates) WHERE name IN "
        found = self._connection.execute(f"{sql} (SELECT value FROM json_each(?))", (json.dumps(list(names)),))
        return [name for (name,) in found]

    def num_sources(self) -> int:
        """Distinct sources of passages, and sources recorded without any."""
        return int(self._connection.execute(f"SELECT count(*) FROM ({_SOURCE_NAMES})").fetchone()[0])

    def changes(self, after: int, limit: int) -> list[Change]:
        """The log's next entries, oldest first."""
        sql = "SELECT sequence, row, operation FROM changes WHERE sequence > ? ORDER BY sequence LIMIT ?"
        return [Change(*found) for found in self._connection.execute(sql, (after, limit))]

    def matching_rows(self, condition: Condition, limit: int) -> Rows:
        """Rows that match, in no order, `limit` at most."""
        sequence = self.last_sequence()
        rows = self._row_sets.get(condition, limit, sequence)
        if rows is None:
            sql = f"SELECT p.row FROM passages p WHERE {condition.sql} LIMIT ?"
            found = self._connection.execute(sql, (*condition.parameters, limit))
            rows = np.fromiter((row for (row,) in found), np.int64)
            self._row_sets.put(condition, limit, sequence, rows)
        return rows

    def keep_matching(self, rows: Rows, condition: Condition) -> Rows:
        """Those of `rows` that exist and match, in no order."""
        sql = f"SELECT p.row FROM passages p WHERE p.row IN (SELECT value FROM json_each(?)) AND {condition.probe}"
        found = self._connection.execute(sql, (json.dumps(rows.tolist()), *condition.parameters))
        return np.fromiter((row for (row,) in found), np.int64)

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """The stored vectors of those rows that exist: ascending rows (N,) and vectors (N, D)."""
        sql = "SELECT row, vector FROM vectors WHERE row IN (SELECT value FROM json_each(?)) ORDER BY row"
        return stack(self._connection.execute(sql, (json.dumps(rows.tolist()),)).fetchall())

    def sentences(self, rows: Rows, dim: int) -> SentenceVectors:
        """The stored vectors of the sentences of those rows that have any, by ascending row."""
        sql = "SELECT row, vectors FROM sentences WHERE row IN (SELECT value FROM json_each(?)) ORDER BY row"
        return stack_sentences(self._connection.execute(sql, (json.dumps(rows.tolist()),)).fetchall(), dim)

    def scan_vectors(self, after: int = 0, up_to: int | None = None) -> Iterator[tuple[Rows, Vectors]]:
        """Vectors of the rows in (after, up_to], ascending, batch by batch."""
        sql = "SELECT row, vector FROM vectors WHERE row > ? AND row <= ? ORDER BY row"
        cursor = self._connection.execute(sql, (after, _MAX_ROW if up_to is None else up_to))
        while batch := cursor.fetchmany(_VECTORS_PER_BATCH):
            yield stack(batch)

    def row_at(self, after: int, offset: int) -> int | None:
        """The row that has `offset` rows between itself and `after`; None beyond the last."""
        sql = "SELECT row FROM vectors WHERE row > ? ORDER BY row LIMIT 1 OFFSET ?"
        found = self._connection.execute(sql, (after, offset)).fetchone()
        return int(found[0]) if found else None

    def texts(self, rows: Sequence[int]) -> list[tuple[int, str, str]]:
        """(row, title, text) of those rows that exist."""
        sql = "SELECT row, title, text FROM passages WHERE row IN (SELECT value FROM json_each(?))"
        return self._connection.execute(sql, (json.dumps(list(rows)),)).fetchall()

    def scan_texts(self, batch_size: int = 2_048) -> Iterator[list[tuple[int, str, str]]]:
        """(row, title, text) of every passage, batch by batch."""
        cursor = self._connection.execute("SELECT row, title, text FROM passages ORDER BY row")
        while batch := cursor.fetchmany(batch_size):
            yield batch

    def scan_passages(self, batch_size: int, *, with_vectors: bool) -> Iterator[list[StoredPassage]]:
        """Every passage by ascending row, batch by batch."""
        vector = "vector" if with_vectors else "NULL"
        sql = f"SELECT {vector}, {_PASSAGE} FROM passages LEFT JOIN vectors USING (row) ORDER BY row"
        cursor = self._connection.execute(sql)
        while batch := cursor.fetchmany(batch_size):
            yield [StoredPassage(passage_from(columns), blob and vector_from(blob)) for blob, *columns in batch]

    def scan_versions(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """(id, what makes two passages of this id equal) of every passage, in id order."""
        sql = "SELECT id, content_digest, source, start_char, end_char, page, metadata FROM passages ORDER BY id"
        return ((id_, tuple(version)) for id_, *version in self._connection.execute(sql))

    def passages(self, rows: Rows) -> dict[int, Passage]:
        """The passages of those rows that exist."""
        sql = f"SELECT row, {_PASSAGE} FROM passages WHERE row IN (SELECT value FROM json_each(?))"
        found = self._connection.execute(sql, (json.dumps(rows.tolist()),))
        return {row: passage_from(columns) for row, *columns in found}

    def passages_by_id(self, ids: Sequence[str]) -> dict[str, tuple[int, Passage]]:
        """(row, passage) of those ids that exist."""
        sql = f"SELECT row, {_PASSAGE} FROM passages WHERE id IN (SELECT value FROM json_each(?))"
        found = self._connection.execute(sql, (json.dumps(list(ids)),))
        return {columns[0]: (row, passage_from(columns)) for row, *columns in found}

    def rows_beside(self, passage: Passage, count: int) -> list[int]:
        """Rows of the `count` passages before and after one in its source, in order, whatever filter there is."""
        return rows_beside(self._connection, passage, count)

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, PassageVectors]:
        """Vectors of stored passages by content digest (hex); at most 10,000."""
        marks = ", ".join("?" * len(digests))
        sql = (
            "SELECT content_digest, vector, s.vectors FROM passages JOIN vectors USING (row) "
            f"LEFT JOIN sentences s USING (row) WHERE content_digest IN ({marks})"
        )
        found = self._connection.execute(sql, [bytes.fromhex(digest) for digest in digests])
        return {digest.hex(): passage_vectors_from(whole, sentences) for digest, whole, sentences in found}

    def list_passages(self, condition: Condition, after: str, size: int) -> Page:
        """A page of matching passages in id order; shorter than `size` where their texts are long."""
        sql = f"SELECT {_PASSAGE} FROM passages p WHERE p.id > ? AND {condition.sql} ORDER BY p.id LIMIT ?"
        items: list[Passage] = []
        num_chars, is_last = 0, True
        for columns in self._connection.execute(sql, (after, *condition.parameters, size + 1)):
            if len(items) == size or num_chars > _MAX_PAGE_CHARS:
                is_last = False
                break
            items.append(passage_from(columns))
            num_chars += len(items[-1].text)
        return Page(tuple(items), "" if is_last else items[-1].id, self.num_passages(condition))

    def list_sources(self, prefix: str, after: str, size: int) -> Page:
        """A page of sources whose name starts with `prefix`, in name order."""
        named = f"SELECT name FROM ({_SOURCE_NAMES}) WHERE substr(name, 1, length(?1)) = ?1"
        sql = (
            f"SELECT n.name, coalesce(s.digest, ''), coalesce(s.updated_at, 0), "
            "(SELECT count(*) FROM passages p WHERE p.source = n.name) "
            f"FROM ({named}) n LEFT JOIN sources s USING (name) WHERE n.name > ?2 ORDER BY n.name LIMIT ?3"
        )
        found = self._connection.execute(sql, (prefix, after, size + 1)).fetchall()
        (total,) = self._connection.execute(f"SELECT count(*) FROM ({named})", (prefix,)).fetchone()
        items = tuple(Source(name, digest, count, updated) for name, digest, updated, count in found[:size])
        return Page(items, items[-1].name if len(found) > size else "", total)


_SOURCE_NAMES = "SELECT name FROM sources UNION SELECT DISTINCT source FROM passages WHERE source <> ''"


def passage_from(columns: Sequence[Any]) -> Passage:
    """A passage from its columns, in the order of `_PASSAGE`."""
    id_, title, text, source, start, end, page, metadata, sequence = columns
    values = {} if metadata == "{}" else _values(metadata)
    span = None if start is None else Span(start, end, page)
    return Passage(id_, title, text, source, span, values, sequence)


def _values(metadata: str) -> dict[str, MetadataValue]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(metadata).items()}
