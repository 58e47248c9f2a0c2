"""One generation in Elasticsearch: an index of documents, and its part of the collection's index of records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import elasticsearch
import numpy as np

from retriever_service.backends.elasticsearch.errors import error_of, mapped, send_bulk
from retriever_service.backends.elasticsearch.mapping import document_from, document_to
from retriever_service.backends.elasticsearch.queries import BM25_SCALE, Body, compile_filter, inner_product, stage_body
from retriever_service.backends.remote import Document, Record, RecordKind, StageHits, StageQuery
from retriever_service.collection import CollectionSettings, LexicalScoring
from retriever_service.filters import Filter

_OPERATIONS_PER_BULK = 256
_VALUES_PER_QUERY = 1_000
_SCAN_KEEP_ALIVE = "10m"  # Between two pages, whoever reads them.
_EVERYTHING: Body = {"match_all": {}}


class ElasticsearchStore:
    """One generation. Any thread."""

    def __init__(
        self,
        client: elasticsearch.Elasticsearch,
        settings: CollectionSettings,
        number: int,
        documents: str,
        records: str,
        *,
        is_quantised: bool,
    ) -> None:
        """Takes the connection.

        Args:
            client: To the server.
            settings: The generation's.
            number: The generation's.
            documents: Index of its documents.
            records: Index of the collection's records.
            is_quantised: Whether the documents' vectors are searched in less than float32.
        """
        self._client, self._settings, self._number = client, settings, number
        self._documents, self._records, self._is_quantised = documents, records, is_quantised
        is_bm25 = settings.lexical_scoring is LexicalScoring.BM25
        self._lexical_scale = BM25_SCALE if is_bm25 else 1.0

    def put(self, documents: Sequence[Document]) -> None:
        """Writes documents, each replacing one of the same id; durable when it returns."""
        declared = self._settings.filterable_fields
        self._bulk(
            self._documents,
            ([{"index": {"_id": one.passage.id}}, document_to(one, declared)] for one in documents),
        )

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; absent ones are no error."""
        self._bulk(self._documents, ([{"delete": {"_id": id_}}] for id_ in ids))

    def refresh(self) -> None:
        """Returns when searches see every write that has returned."""
        with mapped():
            self._client.indices.refresh(index=[self._documents, self._records])

    def expunge(self) -> None:
        """Merges segments, so that removed documents leave the files."""
        with mapped():
            self._client.indices.forcemerge(index=self._documents, only_expunge_deletes=True)

    def by_ids(self, ids: Sequence[str]) -> list[Document]:
        """The documents of those ids that exist, with vectors; as last written, refreshed or not."""
        found: list[Document] = []
        for some in _chunks(ids):
            with mapped():
                reply = self._client.mget(index=self._documents, ids=list(some))
            found += [document_from(one["_source"]) for one in reply["docs"] if one.get("found")]
        return found

    def by_rows(self, rows: Sequence[int]) -> list[Document]:
        """The documents of those rows that exist, with vectors."""
        return self._with_values("row", rows)

    def by_digests(self, digests: Sequence[str]) -> list[Document]:
        """The documents of these content digests (hex), with vectors."""
        return self._with_values("digest", sorted(set(digests)))

    def page(self, matching: Filter | None, after: str, size: int) -> list[Document]:
        """The next documents that match in id order, without vectors."""
        body: Body = {
            "query": self._query(matching),
            "sort": [{"id": "asc"}],
            "size": size,
            "source": {"excludes": ["exact"]},
        }
        return [document_from(hit["_source"]) for hit in self._hits(self._documents, _after(body, after))]

    def scan(self, size: int, *, with_vectors: bool) -> Iterator[list[Document]]:
        """Every document in id order, page by page, as of the first: a point in time."""
        with mapped():
            view: str = self._client.open_point_in_time(index=self._documents, keep_alive=_SCAN_KEEP_ALIVE)["id"]
        body: Body = {"query": _EVERYTHING, "sort": [{"id": "asc"}], "size": size}
        if not with_vectors:
            body["source"] = {"excludes": ["exact"]}
        try:
            while True:
                reply = self._search(None, body | {"pit": {"id": view, "keep_alive": _SCAN_KEEP_ALIVE}})
                view, hits = reply["pit_id"], reply["hits"]["hits"]
                if not hits:
                    return
                yield [document_from(hit["_source"]) for hit in hits]
                body["search_after"] = hits[-1]["sort"]
        finally:
            with mapped():
                self._client.close_point_in_time(id=view)

    def count(self, matching: Filter | None) -> int:
        """How many match."""
        return self._count(self._documents, self._query(matching))

    def count_by_source(self, names: Sequence[str]) -> dict[str, int]:
        """How many documents each of these sources has."""
        counts = dict.fromkeys(names, 0)
        if names:
            by_source = {"terms": {"field": "source", "size": len(counts)}}
            query = {"terms": {"source": list(counts)}}
            reply = self._search(self._documents, {"query": query, "size": 0, "aggs": {"by_source": by_source}})
            counts |= {one["key"]: one["doc_count"] for one in reply["aggregations"]["by_source"]["buckets"]}
        return counts

    def search(self, queries: Sequence[StageQuery], matching: Filter | None) -> list[StageHits]:
        """Runs all queries in one `_msearch` under the same filter."""
        condition = None if matching is None else self._query(matching)
        asked = [query for query in queries if query.is_asking]
        lines: list[Mapping[str, Any]] = []
        for query in asked:
            lines.append({})
            lines.append(stage_body(query, condition, is_quantised=self._is_quantised))
        replies: Iterator[Mapping[str, Any]] = iter(())
        if lines:
            with mapped():
                replies = iter(self._client.msearch(index=self._documents, searches=lines)["responses"])
        nothing = StageHits(np.empty(0), ())
        return [self._stage_hits(next(replies), query) if query.is_asking else nothing for query in queries]

    def record(self, kind: RecordKind, name: str) -> Record | None:
        """One record, as last written, refreshed or not."""
        with mapped():
            try:
                reply = self._client.get(index=self._records, id=self._record_id(kind, name))
            except elasticsearch.NotFoundError as error:
                if "index_not_found" in str(error):
                    raise
                return None
        return Record(reply["_source"]["value"], (reply["_seq_no"], reply["_primary_term"]))

    def put_record(self, kind: RecordKind, name: str, record: Record) -> bool:
        """Writes a record. False, and nothing is written, when its `version` is no longer the stored one."""
        condition: dict[str, Any] = {}
        if isinstance(record.version, tuple):
            condition = {"if_seq_no": record.version[0], "if_primary_term": record.version[1]}
        with mapped():
            try:
                value = self._record(kind, name, record.value)
                self._client.index(index=self._records, id=self._record_id(kind, name), document=value, **condition)
            except elasticsearch.ConflictError:
                return False
        return True

    def updating(self) -> AbstractContextManager[Any]:
        """Nothing: `put_record` compares."""
        return nullcontext()

    def put_records(self, kind: RecordKind, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes records by name, whatever was there."""
        self._bulk(
            self._records,
            (
                [{"index": {"_id": self._record_id(kind, name)}}, self._record(kind, name, value)]
                for name, value in values.items()
            ),
        )

    def remove_records(self, kind: RecordKind, names: Sequence[str]) -> None:
        """Removes records; absent ones are no error."""
        self._bulk(self._records, ([{"delete": {"_id": self._record_id(kind, name)}}] for name in names))

    def record_page(self, kind: RecordKind, prefix: str, after: str, size: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The next records in name order whose name starts with `prefix`."""
        body: Body = {"query": self._named(kind, prefix), "sort": [{"name": "asc"}], "size": size}
        hits = self._hits(self._records, _after(body, after))
        return [(hit["_source"]["name"], hit["_source"]["value"]) for hit in hits]

    def count_records(self, kind: RecordKind, prefix: str) -> int:
        """How many records have a name that starts with `prefix`."""
        return self._count(self._records, self._named(kind, prefix))

    def _record(self, kind: RecordKind, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": kind.of(self._number), "name": name, "value": value}

    def _record_id(self, kind: RecordKind, name: str) -> str:
        """Within the server's limit of 512 bytes, whatever the name."""
        if kind is RecordKind.LEDGER:
            return str(kind)
        return f"{kind.of(self._number)}-{hashlib.sha256(name.encode()).hexdigest()}"

    def _named(self, kind: RecordKind, prefix: str) -> Body:
        named = [{"prefix": {"name": {"value": prefix}}}] if prefix else []
        return {"bool": {"filter": [{"term": {"kind": {"value": kind.of(self._number)}}}, *named]}}

    def _query(self, matching: Filter | None) -> Body:
        return _EVERYTHING if matching is None else compile_filter(matching, self._settings.filterable_fields)

    def _with_values(self, field: str, values: Sequence[int] | Sequence[str]) -> list[Document]:
        found: list[Document] = []
        for some in _chunks(values):
            body = {"query": {"terms": {field: list(some)}}, "size": 2 * len(some)}
            found += [document_from(hit["_source"]) for hit in self._hits(self._documents, body)]
        return found

    def _hits(self, index: str, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        hits: Sequence[Mapping[str, Any]] = self._search(index, body)["hits"]["hits"]
        return hits

    def _search(self, index: str | None, body: Mapping[str, Any]) -> Mapping[str, Any]:
        with mapped():
            return _complete(self._client.search(index=index, track_total_hits=False, **body).body)

    def _count(self, index: str, query: Body) -> int:
        with mapped():
            return int(self._client.count(index=index, query=query)["count"])

    def _stage_hits(self, reply: Mapping[str, Any], query: StageQuery) -> StageHits:
        if "error" in reply:
            raise error_of(int(reply["status"]), str(reply["error"].get("reason", reply["error"])))
        hits = _complete(reply)["hits"]["hits"]
        scores = [self._raw(hit["_score"], query) for hit in hits]
        return StageHits(np.array(scores, np.float64), tuple(document_from(hit["_source"]) for hit in hits))

    def _raw(self, score: float, query: StageQuery) -> float:
        if query.vector is None:
            return self._lexical_scale * score
        return inner_product(score, self._settings.metric)

    def _bulk(self, index: str, operations: Iterator[list[Mapping[str, Any]]]) -> None:
        def send(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
            with mapped():
                reply: Mapping[str, Any] = self._client.bulk(index=index, operations=lines).body
            return reply

        while some := list(islice(operations, _OPERATIONS_PER_BULK)):
            send_bulk(send, some)


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _VALUES_PER_QUERY] for start in range(0, len(values), _VALUES_PER_QUERY))


def _complete(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The reply itself, unless a shard's part is missing: half an answer looks like a whole one."""
    if reply["timed_out"] or reply["_shards"]["failed"]:
        raise error_of(503, "a shard did not answer")
    return reply


def _after(body: Body, after: str) -> Body:
    return body | ({"search_after": [after]} if after else {})
