"""Inside one transaction of a collection's store: rows change, the log and the content sum follow."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from retriever_service.batch import Batch, EncodedPassage, ItemOutcome, Outcome, Patch, Written
from retriever_service.collection import FieldType, Passage
from retriever_service.filters import Condition
from retriever_service.limits import LIMITS, check_count
from retriever_service.schema import ROW_TABLES
from retriever_service.store import Reader
from retriever_service.stored_vectors import store_vectors, vector_blob
from retriever_service.vectors import PassageVectors

CONTENT_SUM = "content_sum"
_MODULUS = 1 << 256


class HasMeta(Protocol):
    """Reads a collection's own values."""

    def meta(self, key: str, default: str = "") -> str:
        """One of them."""
        ...


class Transaction:
    """Changes one collection. `finish` before the commit."""

    def __init__(self, connection: sqlite3.Connection, filterable: Mapping[str, FieldType]) -> None:
        self._sql = connection
        self._reader = Reader(connection)
        self._filterable = filterable
        self._content_sum = int(self._reader.meta(CONTENT_SUM, "0"), 16)
        self._now = time.time()

    def write(self, batch: Batch) -> Written:
        """Writes a batch."""
        stale = self._stale_ids(batch)
        outcomes = tuple(self._upsert(item, stale) for item in batch.passages)
        num_deleted = sum(self._remove(*self._row_of(id_)) for id_ in sorted(stale))
        self._record_sources(batch)
        return Written(outcomes, num_deleted, self._reader.last_sequence())

    def delete(self, condition: Condition, sources: Sequence[str]) -> Written:
        """Deletes matching passages, and the record of `sources`."""
        sql = f"SELECT p.row, p.id, p.content_digest, p.source FROM passages p WHERE {condition.sql}"
        found = self._sql.execute(sql, condition.parameters).fetchall()
        for row, id_, digest, source in found:
            self._remove(row, id_, digest, source)
        self._forget_sources(sources)
        return Written((), len(found), self._reader.last_sequence())

    def patch(self, condition: Condition, change: Patch) -> Written:
        """Changes the metadata of matching passages.

        Raises:
            InvalidRequest: When a passage would have more fields than it may.
        """
        found = self._sql.execute(f"SELECT p.row FROM passages p WHERE {condition.sql}", condition.parameters)
        num_patched = 0
        for (row,) in found.fetchall():
            passage = self._passage(row)
            kept = {name: value for name, value in passage.metadata.items() if name not in change.remove}
            metadata = {**kept, **change.set}
            check_count(len(metadata), LIMITS.max_metadata_fields, f"metadata of passage {passage.id!r}")
            outcome = self._patch(row, replace(passage, metadata=metadata))
            num_patched += outcome.outcome is Outcome.UPDATED
        return Written((), 0, self._reader.last_sequence(), num_patched)

    def erase(self, rows: Sequence[int], sources: Sequence[str]) -> None:
        """Takes rows and sources out as if they had never been: nothing is logged. For copies that nobody follows."""
        for row in rows:
            self._count(self._passage(row), sign=-1)
            (digest,) = self._sql.execute("SELECT content_digest FROM passages WHERE row = ?", (row,)).fetchone()
            self._sql.execute("DELETE FROM duplicates WHERE content_digest = ?", (digest,))
            self._delete_row(row)
        self._forget_sources(sources)

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Records values of the collection itself."""
        self._sql.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def finish(self) -> None:
        """Records what the transaction as a whole has changed."""
        self.set_meta({CONTENT_SUM: f"{self._content_sum:x}", "updated_at": str(self._now)})

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
        return bool(stored != vector_blob(item.vector))

    def _insert(self, item: EncodedPassage, digest: bytes) -> None:
        columns = passage_columns(item.passage)
        cursor = self._sql.execute(
            "INSERT INTO passages (id, title, text, source, start_char, end_char, page, metadata, content_digest, "
            "sequence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (*columns, digest),
        )
        row = int(cursor.lastrowid or 0)
        store_vectors(self._sql, row, PassageVectors(item.vector, item.sentences))
        self._index_fields(row, item.passage)
        self._sql.execute("UPDATE passages SET sequence = ? WHERE row = ?", (self._log(row, "added"), row))
        self._count(item.passage, sign=1)

    def _patch(self, row: int, passage: Passage) -> ItemOutcome:
        before = self._passage(row)
        columns = passage_columns(passage)
        if passage_columns(before) == columns:
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
        self._delete_row(row)
        self._log(row, "removed")
        # Sources whose own copy was not kept are no longer complete: their next ingestion brings the content back.
        self._sql.execute(
            "UPDATE sources SET digest = '' WHERE name IN (SELECT source FROM duplicates WHERE content_digest = ?)",
            (digest,),
        )
        self._sql.execute("DELETE FROM duplicates WHERE content_digest = ?", (digest,))
        return 1

    def _delete_row(self, row: int) -> None:
        for table in ROW_TABLES:
            self._sql.execute(f"DELETE FROM {table} WHERE row = ?", (row,))

    def _forget_sources(self, names: Sequence[str]) -> None:
        for table, column in (("sources", "name"), ("duplicates", "source")):
            self._sql.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(name,) for name in names])

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
        entry = hashlib.sha256(json.dumps(passage_columns(passage), ensure_ascii=False).encode()).digest()
        self._content_sum = (self._content_sum + sign * int.from_bytes(entry, "big")) % _MODULUS


def index_digest(reader: HasMeta, encoder_digest: str) -> str:
    """SHA-256 (hex) over all passages and the encoder: equal content, equal digest, whatever order it came in."""
    return hashlib.sha256(f"{encoder_digest} {reader.meta(CONTENT_SUM, '0')}".encode()).hexdigest()


def passage_columns(passage: Passage) -> tuple[object, ...]:
    """What is stored of a passage, in the columns' order: a passage equal in it is unchanged."""
    span = passage.span
    place = (None, None, None) if span is None else (span.start_char, span.end_char, span.page)
    metadata = json.dumps(dict(sorted(passage.metadata.items())), ensure_ascii=False)
    return (passage.id, passage.title, passage.text, passage.source, *place, metadata)
