"""One generation in Milvus: a Milvus collection of documents, and its part of the one of records."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pymilvus

from retriever_service.backends.milvus.errors import mapped
from retriever_service.backends.milvus.expressions import EVERYTHING, NOTHING, any_of, compile_filter, literal
from retriever_service.backends.milvus.schema import DOCUMENT_FIELDS, document_from, document_to
from retriever_service.backends.remote import Document, Record, RecordKind, StageHits, StageQuery
from retriever_service.collection import CollectionSettings
from retriever_service.filters import Filter

# Milvus takes messages of 64 MB; a document is at most 211 kB (text, two JSON columns, 4,096 dimensions).
_DOCUMENTS_PER_CALL = 256
_VALUES_PER_CALL, _MAX_HITS_PER_CALL = 1_000, 4_000
_MAX_RESULTS = 16_384  # Milvus's limit for one query.
# BOUNDED searches may miss what is younger; the server's `common.gracefulTime`, with a margin.
_BOUNDED_SECONDS = 6.0
_STRONG, _BOUNDED = "Strong", "Bounded"
_HIGHEST = "\U0010ffff"


class MilvusStore:
    """One generation. Any thread.

    What must be seen is asked for with consistency STRONG, which waits for it: reads by id always, searches for as long
    after a refresh as BOUNDED ones, which wait for nothing, could miss what was written before it.
    """

    def __init__(
        self,
        client: pymilvus.MilvusClient,
        settings: CollectionSettings,
        number: int,
        documents: str,
        records: str,
        timeout: float,
        lock: threading.Lock,
        *,
        is_lite: bool,
    ) -> None:
        """Takes the connection.

        Args:
            client: To the server.
            settings: The generation's.
            number: The generation's.
            documents: Name of the documents' collection.
            records: Name of the records' collection.
            timeout: Of one call, in seconds.
            lock: The collection's, held while a record is read, changed and written back.
            is_lite: Whether it is milvus-lite, which limits a query in no order: pages are cut here, from all that
                it returns.
        """
        self._client, self._settings, self._number, self._timeout = client, settings, number, timeout
        self._documents, self._records, self._lock = documents, records, lock
        self._refreshed_at = time.monotonic()
        self._is_lite = is_lite

    def put(self, documents: Sequence[Document]) -> None:
        """Writes documents, each replacing one of the same id; durable when it returns."""
        declared = self._settings.filterable_fields
        rows = [document_to(one, declared) for one in documents]
        for some in _chunks(rows, _DOCUMENTS_PER_CALL):
            self._upsert(self._documents, some)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; absent ones are no error."""
        for some in _chunks(ids, _VALUES_PER_CALL):
            self._delete(self._documents, any_of("id", some))

    def refresh(self) -> None:
        """Returns when searches see every write that has returned."""
        self._refreshed_at = time.monotonic()

    def expunge(self) -> None:
        """Asks for a compaction, in which removed documents leave the files."""
        with mapped():
            self._client.flush(self._documents, timeout=self._timeout)
            self._client.compact(self._documents, timeout=self._timeout)

    def by_ids(self, ids: Sequence[str]) -> list[Document]:
        """The documents of those ids that exist, with vectors."""
        return self._with_values("id", ids)

    def by_rows(self, rows: Sequence[int]) -> list[Document]:
        """The documents of those rows that exist, with vectors."""
        return self._with_values("row", rows)

    def by_digests(self, digests: Sequence[str]) -> list[Document]:
        """The documents of these content digests (hex), with vectors."""
        return self._with_values("digest", sorted(set(digests)))

    def page(self, matching: Filter | None, after: str, size: int) -> list[Document]:
        """The next documents that match in id order, without vectors: Milvus limits in the order of primary keys."""
        later = f"id > {literal(after)}"
        expression = later if matching is None else f"{later} and {self._expression(matching)}"
        found = self._query(self._documents, expression, DOCUMENT_FIELDS, limit=self._limit(size))
        return sorted(map(document_from, found), key=lambda one: one.passage.id.encode())[:size]

    def scan(self, size: int, *, with_vectors: bool) -> Iterator[list[Document]]:
        """Every document in id order, page by page, as of the first where the server says when that was."""
        fields = [*DOCUMENT_FIELDS, "vector"] if with_vectors else DOCUMENT_FIELDS
        with mapped():
            iterator = self._client.query_iterator(
                self._documents,
                batch_size=size,
                filter=EVERYTHING,
                output_fields=fields,
                consistency_level=_STRONG,
                timeout=self._timeout,
            )
        try:
            while True:
                with mapped():
                    found = iterator.next()
                if not found:
                    return
                yield [document_from(one) for one in found]
        finally:
            iterator.close()

    def count(self, matching: Filter | None) -> int:
        """How many match."""
        return self._count(self._documents, "" if matching is None else self._expression(matching))

    def count_by_source(self, names: Sequence[str]) -> dict[str, int]:
        """How many documents each of these sources has."""
        return {name: self._count(self._documents, f"source == {literal(name)}") for name in names}

    def search(self, queries: Sequence[StageQuery], matching: Filter | None) -> list[StageHits]:
        """Runs the queries of each stage in one call, under the same filter."""
        results = [StageHits(np.empty(0), ())] * len(queries)
        stages: dict[tuple[object, ...], list[int]] = {}
        for i, query in enumerate(queries):
            if query.is_asking:
                stages.setdefault((query.vector is None, query.count, query.among), []).append(i)
        for positions in stages.values():
            per_call = max(1, _MAX_HITS_PER_CALL // queries[positions[0]].count)
            for some in _chunks(positions, per_call):
                found = self._search([queries[i] for i in some], matching)
                for i, hits in zip(some, found, strict=True):
                    results[i] = hits
        return results

    def record(self, kind: RecordKind, name: str) -> Record | None:
        """One record."""
        found = self._query(self._records, f"key == {literal(self._key(kind, name))}", ["value"], limit=1)
        return Record(found[0]["value"]) if found else None

    def put_record(self, kind: RecordKind, name: str, record: Record) -> bool:
        """Writes a record, whatever was there: Milvus cannot compare first."""
        self.put_records(kind, {name: record.value})
        return True

    def updating(self) -> AbstractContextManager[Any]:
        """Keeps this process's other threads away; other processes do not write."""
        return self._lock

    def put_records(self, kind: RecordKind, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes records by name, whatever was there."""
        records = [
            {"key": self._key(kind, name), "value": dict(value), "unused": [0.0, 1.0]} for name, value in values.items()
        ]
        for some in _chunks(records, _VALUES_PER_CALL):
            self._upsert(self._records, some)

    def remove_records(self, kind: RecordKind, names: Sequence[str]) -> None:
        """Removes records; absent ones are no error."""
        for some in _chunks(names, _VALUES_PER_CALL):
            self._delete(self._records, any_of("key", [self._key(kind, name) for name in some]))

    def record_page(self, kind: RecordKind, prefix: str, after: str, size: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The next records in name order whose name starts with `prefix`."""
        expression = f"{self._starting(kind, prefix)} and key > {literal(self._key(kind, after))}"
        found = self._query(self._records, expression, ["key", "value"], limit=self._limit(size))
        start = self._key(kind, "")
        pairs = [(one["key"].removeprefix(start), one["value"]) for one in found]
        return sorted(pairs, key=lambda pair: pair[0].encode())[:size]

    def count_records(self, kind: RecordKind, prefix: str) -> int:
        """How many records have a name that starts with `prefix`."""
        return self._count(self._records, self._starting(kind, prefix))

    def _key(self, kind: RecordKind, name: str) -> str:
        return str(kind) if kind is RecordKind.LEDGER else f"{kind.of(self._number)}:{name}"

    def _starting(self, kind: RecordKind, prefix: str) -> str:
        start = self._key(kind, prefix)
        return f"key >= {literal(start)} and key < {literal(start + _HIGHEST)}"

    def _limit(self, size: int) -> int:
        return _MAX_RESULTS if self._is_lite else size

    def _expression(self, matching: Filter) -> str:
        return compile_filter(matching, self._settings.filterable_fields)

    def _with_values(self, column: str, values: Sequence[Any]) -> list[Document]:
        found: list[Document] = []
        for some in _chunks(values, _VALUES_PER_CALL):
            fields = [*DOCUMENT_FIELDS, "vector"]
            found += map(document_from, self._query(self._documents, any_of(column, some), fields))
        return found

    def _query(self, collection: str, expression: str, fields: list[str], limit: int = _MAX_RESULTS) -> list[Any]:
        with mapped():
            return list(
                self._client.query(
                    collection,
                    filter=expression,
                    output_fields=fields,
                    limit=limit,
                    consistency_level=_STRONG,
                    timeout=self._timeout,
                )
            )

    def _count(self, collection: str, expression: str) -> int:
        with mapped():
            (found,) = self._client.query(
                collection,
                filter=expression,
                output_fields=["count(*)"],
                consistency_level=_STRONG,
                timeout=self._timeout,
            )
        return int(found["count(*)"])

    def _search(self, queries: Sequence[StageQuery], matching: Filter | None) -> list[StageHits]:
        first = queries[0]
        conditions = [] if matching is None else [self._expression(matching)]
        if first.among is not None:
            conditions.append(any_of("row", first.among))
        is_dense = first.vector is not None
        params = {"ef": max(2 * first.count, 128)} if is_dense else {}
        is_old = time.monotonic() - self._refreshed_at > _BOUNDED_SECONDS
        with mapped():
            replies = self._client.search(
                self._documents,
                data=[query.vector if is_dense else query.text for query in queries],
                anns_field="vector" if is_dense else "words",
                filter=" and ".join(conditions),
                limit=first.count,
                output_fields=[*DOCUMENT_FIELDS, "vector"],
                search_params={"metric_type": "IP" if is_dense else "BM25", "params": params},
                consistency_level=_BOUNDED if is_old else _STRONG,
                timeout=self._timeout,
            )
        return [_stage_hits(reply, is_dense=is_dense) for reply in replies]

    def _upsert(self, collection: str, rows: Sequence[Mapping[str, Any]]) -> None:
        with mapped():
            self._client.upsert(collection, list(rows), timeout=self._timeout)

    def _delete(self, collection: str, expression: str) -> None:
        if expression != NOTHING:
            with mapped():
                self._client.delete(collection, filter=expression, timeout=self._timeout)


def _stage_hits(reply: Sequence[Mapping[str, Any]], *, is_dense: bool) -> StageHits:
    distances = np.array([hit["distance"] for hit in reply], np.float64)
    # milvus-lite writes BM25 scores as negative distances.
    return StageHits(distances if is_dense else np.abs(distances), tuple(document_from(hit["entity"]) for hit in reply))


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
