"""The transactions that change a collection: each is one batch, and durable when it returns."""

from __future__ import annotations

import enum
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from retriever_service.collection import FieldType, Passage, Source, Vectors
from retriever_service.filters import Condition
from retriever_service.store import Reader, Store

_DIGEST_KEY = "content_sum"
_MODULUS = 1 << 256


class Outcome(enum.StrEnum):
    """What became of one passage."""

    INSERTED = "inserted"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class EncodedPassage:
    """A checked passage with its vector (D,), float32. `is_given` vectors came from the caller and replace another."""

    passage: Passage
    vector: Vectors
    is_given: bool = False


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


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes.

    Attributes:
        passages: Written in order; the first of equal content is kept.
        sources: Recorded with their digests.
        replaced_sources: Passages of these sources that are not in `held_ids` are deleted.
        held_ids: Every id that the stream held.
    """

    passages: Sequence[EncodedPassage] = ()
    sources: Sequence[Source] = ()
    replaced_sources: Sequence[str] = ()
    held_ids: frozenset[str] = field(default_factory=frozenset)


class Writer:
    """Changes one collection. One thread at a time."""

    def __init__(self, store: Store, filterable_fields: Mapping[str, FieldType]) -> None:
        self._store, self._filterable = store, filterable_fields

    def write(self, batch: Batch) -> Written:
        """Commits a batch in one transaction."""
        with self._writing() as transaction:
            return transaction.write(batch)

    def delete(self, condition: Condition, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`."""
        with self._writing() as transaction:
            return transaction.delete(condition, sources)

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Records values of the collection itself."""
        with self._writing() as transaction:
            transaction.set_meta(values)

    @contextmanager
    def _writing(self) -> Iterator[_Transaction]:
        connection = self._store.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            transaction = _Transaction(connection, self._filterable)
            yield transaction
            transaction.finish()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")  # Returns after fsync.


class _Transaction:
    def __init__(self, connection: sqlite3.Connection, filterable: Mapping[str, FieldType]) -> None:
        self._sql = connection
        self._reader = Reader(connection)
        self._filterable = filterable
        self._content_sum = int(self._reader.meta(_DIGEST_KEY, "0"), 16)
        self._now = time.time()

    def write(self, batch: Batch) -> Written:
        stale = self._stale_ids(batch)
        outcomes = tuple(self._upsert(item, stale) for item in batch.passages)
        num_deleted = sum(self._remove(*self._row_of(id_)) for id_ in sorted(stale))
        self._record_sources(batch)
        return Written(outcomes, num_deleted, self._reader.last_sequence())

    def delete(self, condition: Condition, sources: Sequence[str]) -> Written:
        sql = f"SELECT p.row, p.id, p.content_digest, p.source FROM passages p WHERE {condition.sql}"
        found = self._sql.execute(sql, condition.parameters).fetchall()
        for row, id_, digest, source in found:
            self._remove(row, id_, digest, source)
        self._sql.executemany("DELETE FROM sources WHERE name = ?", [(name,) for name in sources])
        self._sql.executemany("DELETE FROM duplicates WHERE source = ?", [(name,) for name in sources])
        return Written((), len(found), self._reader.last_sequence())

    def set_meta(self, values: Mapping[str, str]) -> None:
        self._sql.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def finish(self) -> None:
        self.set_meta({_DIGEST_KEY: f"{self._content_sum:x}", "updated_at": str(self._now)})

    def _stale_ids(self, batch: Batch) -> set[str]:
        stale: set[str] = set()
        for source in batch.replaced_sources:
            self._sql.execute("DELETE FROM duplicates WHERE source = ?", (source,))
            stale |= {id_ for (id_,) in self._sql.execute("SELECT id FROM passages WHERE source = ?", (source,))}
        return stale - batch.held_ids

    def _upsert(self, item: EncodedPassage, stale: set[str]) -> ItemOutcome:
        """Writes one passage. A stale passage of the same content takes the new id: only its place has moved."""
        passage = item.passage
        digest = bytes.fromhex(passage.content_digest)
        holder = self._sql.execute(
            "SELECT row, id, content_digest, source FROM passages WHERE content_digest = ?", (digest,)
        ).fetchone()
        stored = self._sql.execute(
            "SELECT row, id, content_digest, source FROM passages WHERE id = ?", (passage.id,)
        ).fetchone()
        if holder is not None and holder[1] != passage.id and holder[1] not in stale:
            if stored is not None:  # The id's former text is no longer what the caller wants found.
                self._remove(*stored)
            self._remember_duplicate(digest, passage.source, holder[3])
            return ItemOutcome(Outcome.DUPLICATE, duplicate_of=holder[1])
        if holder is not None and not self._replaces_vector(item, holder[0]):
            if stored is not None and stored[0] != holder[0]:
                self._remove(*stored)
            stale.discard(holder[1])
            return self._patch(holder[0], passage)
        if holder is not None:
            stale.discard(holder[1])
            self._remove(*holder)
        if stored is not None and (holder is None or stored[0] != holder[0]):
            self._remove(*stored)
        self._insert(item, digest)
        return ItemOutcome(Outcome.INSERTED if stored is None and holder is None else Outcome.UPDATED)

    def _replaces_vector(self, item: EncodedPassage, row: int) -> bool:
        if not item.is_given:
            return False
        (stored,) = self._sql.execute("SELECT vector FROM vectors WHERE row = ?", (row,)).fetchone()
        return bool(stored != _blob(item.vector))

    def _insert(self, item: EncodedPassage, digest: bytes) -> None:
        columns = _columns(item.passage)
        cursor = self._sql.execute(
            "INSERT INTO passages (id, title, text, source, start_char, end_char, page, metadata, content_digest, "
            "sequence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (*columns, digest),
        )
        row = int(cursor.lastrowid or 0)
        self._sql.execute("INSERT INTO vectors VALUES (?, ?)", (row, _blob(item.vector)))
        self._index_fields(row, item.passage)
        self._sql.execute("UPDATE passages SET sequence = ? WHERE row = ?", (self._log(row, "added"), row))
        self._count(item.passage, sign=1)

    def _patch(self, row: int, passage: Passage) -> ItemOutcome:
        before = self._passage(row)
        columns = _columns(passage)
        if _columns(before) == columns:
            return ItemOutcome(Outcome.UNCHANGED)
        self._count(before, sign=-1)
        self._count(passage, sign=1)
        self._sql.execute(
            "UPDATE passages SET id = ?, title = ?, text = ?, source = ?, start_char = ?, end_char = ?, page = ?, "
            "metadata = ?, sequence = ? WHERE row = ?",
            (*columns, self._log(row, "patched"), row),
        )
        self._sql.execute("DELETE FROM fields WHERE row = ?", (row,))
        self._index_fields(row, passage)
        return ItemOutcome(Outcome.UPDATED)

    def _remove(self, row: int, id_: str, digest: bytes, source: str) -> int:
        self._count(self._passage(row), sign=-1)
        for table in ("passages", "vectors", "fields"):
            self._sql.execute(f"DELETE FROM {table} WHERE row = ?", (row,))
        self._log(row, "removed")
        # Sources whose own copy was not kept are no longer complete: their next ingestion brings the content back.
        self._sql.execute(
            "UPDATE sources SET digest = '' WHERE name IN (SELECT source FROM duplicates WHERE content_digest = ?)",
            (digest,),
        )
        self._sql.execute("DELETE FROM duplicates WHERE content_digest = ?", (digest,))
        return 1

    def _row_of(self, id_: str) -> tuple[int, str, bytes, str]:
        found: tuple[int, str, bytes, str] = self._sql.execute(
            "SELECT row, id, content_digest, source FROM passages WHERE id = ?", (id_,)
        ).fetchone()
        return found

    def _passage(self, row: int) -> Passage:
        return self._reader.passages(np.array([row]))[row]

    def _remember_duplicate(self, digest: bytes, source: str, kept_source: str) -> None:
        if source and source != kept_source:
            self._sql.execute("INSERT OR IGNORE INTO duplicates VALUES (?, ?)", (digest, source))

    def _record_sources(self, batch: Batch) -> None:
        for source in batch.sources:
            self._sql.execute(
                "INSERT OR REPLACE INTO sources VALUES (?, ?, ?)", (source.name, source.digest, self._now)
            )

    def _index_fields(self, row: int, passage: Passage) -> None:
        entries = []
        for name in self._filterable.keys() & passage.metadata.keys():
            value = passage.metadata[name]
            entries += [(name, one, row) for one in (set(value) if isinstance(value, tuple) else (value,))]
        self._sql.executemany("INSERT INTO fields VALUES (?, ?, ?)", entries)

    def _log(self, row: int, operation: str) -> int:
        cursor = self._sql.execute("INSERT INTO changes (row, operation) VALUES (?, ?)", (row, operation))
        return int(cursor.lastrowid or 0)

    def _count(self, passage: Passage, *, sign: int) -> None:
        """Adds the passage to, or takes it from, the sum that the index digest is made of.

        A sum of hashes does not depend on order: equal content gives equal digests on every machine.
        """
        entry = hashlib.sha256(json.dumps(_columns(passage), ensure_ascii=False).encode()).digest()
        self._content_sum = (self._content_sum + sign * int.from_bytes(entry, "big")) % _MODULUS


def index_digest(reader: Reader, encoder_digest: str) -> str:
    """SHA-256 (hex) over all passages and the encoder: equal content, equal digest, whatever order it came in."""
    return hashlib.sha256(f"{encoder_digest} {reader.meta(_DIGEST_KEY, '0')}".encode()).hexdigest()


def _columns(passage: Passage) -> tuple[object, ...]:
    span = passage.span
    place = (None, None, None) if span is None else (span.start_char, span.end_char, span.page)
    metadata = json.dumps(dict(sorted(passage.metadata.items())), ensure_ascii=False)
    return (passage.id, passage.title, passage.text, passage.source, *place, metadata)


def _blob(vector: Vectors) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()
