"""An Elasticsearch server, and the collections in it.

A collection NAME is the index `PREFIX.NAME.g1` behind the alias `PREFIX.NAME`, and the index `PREFIX.NAME.records`,
whose record "head" makes the collection exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import elasticsearch

from retriever_service.backends.elasticsearch.errors import mapped
from retriever_service.backends.elasticsearch.mapping import MAX_DIMS, documents_index, records_index
from retriever_service.backends.elasticsearch.store import ElasticsearchStore
from retriever_service.backends.remote import Abilities, Record, RecordKind, refuse
from retriever_service.collection import CollectionSettings

_KIND = "elasticsearch"
_EXACT = "flat"
_CONNECTIONS = 32  # Calls at once: `num_search_threads` and the writers of the collections.
_WITHOUT_LOSS = ("hnsw", _EXACT)
_WITHOUT_STEMMER = ("greek", "tamil")  # Languages that the snowball filter does not know.


@dataclass(frozen=True, slots=True)
class ElasticsearchOptions:
    """How to reach a server, and what indexes to make there.

    Attributes:
        url: With scheme and port.
        api_key: Encoded, or "".
        user: For basic authentication, or "".
        password: The user's.
        ca_file: Certificates to trust, or "" for the system's.
        index_type: Of `index_options`: hnsw and flat keep float32; the others less, and are scored again.
        prefix: Of every index's name.
        num_shards: Primary shards of a collection.
        num_replicas: Copies of each.
        timeout_seconds: Of one call.
    """

    url: str
    api_key: str = ""
    user: str = ""
    password: str = ""
    ca_file: str = ""
    index_type: str = "hnsw"
    prefix: str = "rag"
    num_shards: int = 1
    num_replicas: int = 1
    timeout_seconds: float = 10.0


class ElasticsearchServer:
    """Finds, makes, opens and drops collections. Any thread."""

    def __init__(self, options: ElasticsearchOptions) -> None:
        """Prepares; `connect` connects."""
        self._options = options
        connection: dict[str, Any] = {"connections_per_node": _CONNECTIONS}
        if options.api_key:
            connection["api_key"] = options.api_key
        elif options.user:
            connection["basic_auth"] = (options.user, options.password)
        if options.ca_file:
            connection["ca_certs"] = options.ca_file
        self._client = elasticsearch.Elasticsearch(
            options.url, request_timeout=options.timeout_seconds, max_retries=2, retry_on_timeout=True, **connection
        )

    def connect(self) -> Abilities:
        """Reaches the server."""
        with mapped():
            version = self._client.info()["version"]["number"]
        kind = f"{_KIND} {version}, {self._options.index_type}"
        return Abilities(kind, is_exact=self._options.index_type == _EXACT)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def names(self) -> list[str]:
        """The collections there are, in order."""
        prefix, suffix = f"{self._options.prefix}.", ".records"
        with mapped():
            indexes = self._client.indices.get(index=f"{prefix}*{suffix}")
        names = sorted(index.removeprefix(prefix).removesuffix(suffix) for index in indexes)
        return [name for name in names if self.head(name) is not None]

    def create(self, settings: CollectionSettings, head: Mapping[str, Any]) -> None:
        """Makes an empty collection where there is none; complete when its head is written, which comes last.

        Raises:
            Unimplemented: When its vectors are too long, or nothing stems its language.
        """
        if settings.encoder.dim > MAX_DIMS:
            raise refuse(_KIND, f"index for {settings.encoder.dim} dimensions", f"{MAX_DIMS:,} are its limit")
        if settings.language in _WITHOUT_STEMMER:
            raise refuse(_KIND, f"stemming for {settings.language}", 'take the language "none"')
        options, name = self._options, settings.name
        documents = documents_index(settings, options.index_type, options.num_shards, options.num_replicas)
        records = records_index(options.num_replicas)
        self._delete(name)  # What an interrupted `create` has left.
        with mapped():
            self._client.indices.create(index=self._generation(name), aliases={self._alias(name): {}}, **documents)
            self._client.indices.create(index=self._records(name), **records)
        self.open(settings).put_record(RecordKind.HEAD, "", Record(head))

    def open(self, settings: CollectionSettings) -> ElasticsearchStore:
        """An existing collection."""
        name = settings.name
        is_quantised = self._options.index_type not in _WITHOUT_LOSS
        return ElasticsearchStore(
            self._client, settings, self._alias(name), self._records(name), is_quantised=is_quantised
        )

    def head(self, name: str) -> Mapping[str, Any] | None:
        """The head of a collection; None where there is none."""
        with mapped():
            try:
                reply = self._client.get(index=self._records(name), id="head")
            except elasticsearch.NotFoundError:
                return None
        value: Mapping[str, Any] = reply["_source"]["value"]
        return value

    def drop(self, name: str) -> None:
        """Removes a collection, its head first."""
        self._delete(name)

    def _delete(self, name: str) -> None:
        with mapped():
            for index in (self._records(name), self._generation(name)):
                self._client.indices.delete(index=index, ignore_unavailable=True)

    def _alias(self, name: str) -> str:
        return f"{self._options.prefix}.{name}"

    def _generation(self, name: str) -> str:
        return f"{self._alias(name)}.g1"

    def _records(self, name: str) -> str:
        return f"{self._alias(name)}.records"
