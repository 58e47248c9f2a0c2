"""One collection in Elasticsearch: an index of documents behind an alias, and an index of records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
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
_HEAD_ID = "head"
_EVERYTHING: Body = {"match_all": {}}


class ElasticsearchStore:
    """One collection. Any thread."""

    def __init__(
        self,
        client: elasticsearch.Elasticsearch,
        settings: CollectionSettings,
        documents: str,
        records: str,
        *,
        is_quantised: bool,
    ) -> None:
        """Takes the connection.

        Args:
            client: To the server.
            settings: The collection's.
            documents: Index or alias of the documents.
            records: Index of the records.
            is_quantised: Whether the documents' vectors are searched in less than float32.
        """
        self._client, self._settings = client, settings
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
                reply = self._client.get(index=self._records, id=_record_id(kind, name))
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
                value = {"kind": kind, "name": name, "value": record.value}
                self._client.index(index=self._records, id=_record_id(kind, name), document=value, **condition)
            except elasticsearch.ConflictError:
                return False
        return True

    def put_sources(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes records of sources, whatever was there."""
        kind = RecordKind.SOURCE
        self._bulk(
            self._records,
            (
                [{"index": {"_id": _record_id(kind, name)}}, {"kind": kind, "name": name, "value": value}]
                for name, value in values.items()
            ),
        )

    def remove_sources(self, names: Sequence[str]) -> None:
        """Removes records of sources."""
        self._bulk(self._records, ([{"delete": {"_id": _record_id(RecordKind.SOURCE, name)}}] for name in names))

    def source_page(self, prefix: str, after: str, size: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The next records of sources in name order whose name starts with `prefix`."""
        body: Body = {"query": _sources(prefix), "sort": [{"name": "asc"}], "size": size}
        hits = self._hits(self._records, _after(body, after))
        return [(hit["_source"]["name"], hit["_source"]["value"]) for hit in hits]

    def count_sources(self, prefix: str) -> int:
        """How many records of sources have a name that starts with `prefix`."""
        return self._count(self._records, _sources(prefix))

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

    def _search(self, index: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
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


def _sources(prefix: str) -> Body:
    named = [{"prefix": {"name": {"value": prefix}}}] if prefix else []
    return {"bool": {"filter": [{"term": {"kind": {"value": RecordKind.SOURCE}}}, *named]}}


def _record_id(kind: RecordKind, name: str) -> str:
    """Within the server's limit of 512 bytes, whatever the name."""
    return _HEAD_ID if kind is RecordKind.HEAD else f"source-{hashlib.sha256(name.encode()).hexdigest()}"
