"""The source of truth of one collection: an SQLite file. Reading; `writing` holds the transactions that change it."""

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
from retriever_service.collection import Passage, Rows, Source, Span, Vectors
from retriever_service.filters import Condition

_MAX_PAGE_CHARS = 2 * 1024 * 1024  # So that a page fits into a message.
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
    """One collection's file. Any thread may read; each has a connection of its own."""

    def __init__(self, path: Path) -> None:
        """Opens an existing file, migrating it when it is of an older format.

        Raises:
            FailedPrecondition: When the file is of a newer format.
        """
        self.path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
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
            connection = schema.connect(self.path)
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection

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
            yield Reader(connection)
        finally:
            connection.execute("COMMIT")


class Reader:
    """Reads one state of a collection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

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

    def num_sources(self) -> int:
        """Distinct sources of passages, and sources recorded without any."""
        return int(self._connection.execute(f"SELECT count(*) FROM ({_SOURCE_NAMES})").fetchone()[0])

    def changes(self, after: int, limit: int) -> list[Change]:
        """The log's next entries, oldest first."""
        sql = "SELECT sequence, row, operation FROM changes WHERE sequence > ? ORDER BY sequence LIMIT ?"
        return [Change(*found) for found in self._connection.execute(sql, (after, limit))]

    def matching_rows(self, condition: Condition, limit: int) -> Rows:
        """Rows that match, in no order, `limit` at most."""
        sql = f"SELECT p.row FROM passages p WHERE {condition.sql} LIMIT ?"
        found = self._connection.execute(sql, (*condition.parameters, limit))
        return np.fromiter((row for (row,) in found), np.int64)

    def keep_matching(self, rows: Rows, condition: Condition) -> Rows:
        """Those of `rows` that exist and match, in no order."""
        sql = f"SELECT p.row FROM passages p WHERE p.row IN (SELECT value FROM json_each(?)) AND {condition.probe}"
        found = self._connection.execute(sql, (json.dumps(rows.tolist()), *condition.parameters))
        return np.fromiter((row for (row,) in found), np.int64)

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """The stored vectors of those rows that exist: ascending rows (N,) and vectors (N, D)."""
        sql = "SELECT row, vector FROM vectors WHERE row IN (SELECT value FROM json_each(?)) ORDER BY row"
        return _stack(self._connection.execute(sql, (json.dumps(rows.tolist()),)).fetchall())

    def scan_vectors(self, batch_size: int = 8_192) -> Iterator[tuple[Rows, Vectors]]:
        """Every row's vector, ascending, batch by batch."""
        cursor = self._connection.execute("SELECT row, vector FROM vectors ORDER BY row")
        while batch := cursor.fetchmany(batch_size):
            yield _stack(batch)

    def texts(self, rows: Sequence[int]) -> list[tuple[int, str, str]]:
        """(row, title, text) of those rows that exist."""
        sql = "SELECT row, title, text FROM passages WHERE row IN (SELECT value FROM json_each(?))"
        return self._connection.execute(sql, (json.dumps(list(rows)),)).fetchall()

    def scan_texts(self, batch_size: int = 2_048) -> Iterator[list[tuple[int, str, str]]]:
        """(row, title, text) of every passage, batch by batch."""
        cursor = self._connection.execute("SELECT row, title, text FROM passages ORDER BY row")
        while batch := cursor.fetchmany(batch_size):
            yield batch

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

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, Vectors]:
        """Vectors (D,) of stored passages by content digest (hex); at most 10,000."""
        marks = ", ".join("?" * len(digests))
        sql = f"SELECT content_digest, vector FROM passages JOIN vectors USING (row) WHERE content_digest IN ({marks})"
        found = self._connection.execute(sql, [bytes.fromhex(digest) for digest in digests])
        return {digest.hex(): vector_from(blob) for digest, blob in found}

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
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(metadata).items()}
    span = None if start is None else Span(start, end, page)
    return Passage(id_, title, text, source, span, values, sequence)


def vector_from(blob: bytes) -> Vectors:
    """A stored vector (D,)."""
    return np.frombuffer(blob, "<f4").astype(np.float32, copy=False)


def _stack(found: Sequence[tuple[int, bytes]]) -> tuple[Rows, Vectors]:
    rows = np.fromiter((row for row, _ in found), np.int64, len(found))
    if not len(found):
        return rows, np.empty((0, 0), np.float32)
    return rows, np.frombuffer(b"".join(blob for _, blob in found), "<f4").reshape(len(found), -1)
