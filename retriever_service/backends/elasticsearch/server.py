"""An Elasticsearch server, and the collections in it.

A collection NAME is an index `PREFIX.NAME.gN` for each generation N, the alias `PREFIX.NAME`, which names the one that
is served, and the index `PREFIX.NAME.records`, whose record "head", the ledger, makes the collection exist.

Source: Elastic's reference for aliases, index blocks and the clone index API.
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
from serving.errors import FailedPrecondition, NotReady

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
        return Abilities(kind, is_exact=self._options.index_type == _EXACT, clones=True)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def names(self) -> list[str]:
        """The collections there are, in order."""
        prefix, suffix = f"{self._options.prefix}.", ".records"
        with mapped():
            indexes = self._client.indices.get(index=f"{prefix}*{suffix}")
        names = sorted(index.removeprefix(prefix).removesuffix(suffix) for index in indexes)
        return [name for name in names if self.ledger(name) is not None]

    def create(self, settings: CollectionSettings, ledger: Mapping[str, Any]) -> None:
        """Makes an empty collection where there is none; complete when its ledger is written, which comes last.

        Raises:
            Unimplemented: When its vectors are too long, or nothing stems its language.
        """
        name = settings.name
        self.drop(name)  # What an interrupted `create` has left.
        self.make(settings, 1)
        self.point(name, 1)
        with mapped():
            self._client.indices.create(index=self._records(name), **records_index(self._options.num_replicas))
        self.open(settings, 1).put_record(RecordKind.LEDGER, "", Record(ledger))

    def open(self, settings: CollectionSettings, number: int) -> ElasticsearchStore:
        """A generation of an existing collection."""
        name = settings.name
        is_quantised = self._options.index_type not in _WITHOUT_LOSS
        return ElasticsearchStore(
            self._client,
            settings,
            number,
            self._generation(name, number),
            self._records(name),
            is_quantised=is_quantised,
        )

    def ledger(self, name: str) -> Mapping[str, Any] | None:
        """The ledger of a collection; None where there is none."""
        with mapped():
            try:
                reply = self._client.get(index=self._records(name), id=str(RecordKind.LEDGER))
            except elasticsearch.NotFoundError:
                return None
        value: Mapping[str, Any] = reply["_source"]["value"]
        return value

    def drop(self, name: str) -> None:
        """Removes a collection with every generation, its ledger first."""
        with mapped():
            self._client.indices.delete(index=self._records(name), ignore_unavailable=True)
            # One by one: servers refuse to delete by a pattern.
            for index in sorted(self._client.indices.get(index=self._generation(name, "*"))):
                self._client.indices.delete(index=index, ignore_unavailable=True)

    def make(self, settings: CollectionSettings, number: int) -> None:
        """Makes a generation without documents.

        Raises:
            Unimplemented: When its vectors are too long, or nothing stems its language.
        """
        if settings.encoder.dim > MAX_DIMS:
            raise refuse(_KIND, f"index for {settings.encoder.dim} dimensions", f"{MAX_DIMS:,} are its limit")
        if settings.language in _WITHOUT_STEMMER:
            raise refuse(_KIND, f"stemming for {settings.language}", 'take the language "none"')
        options = self._options
        body = documents_index(settings, options.index_type, options.num_shards, options.num_replicas)
        self.remove(settings.name, number)
        with mapped():
            self._client.indices.create(index=self._generation(settings.name, number), **body)

    def clone(self, name: str, source: int, number: int) -> None:
        """Makes a generation of a frozen one's files: links to them, where the file system has links.

        Not `_reindex`, which would lose the vectors: they are not in `_source`.

        Raises:
            FailedPrecondition: When the index lacks copies of its shards: the server clones green ones alone.
            NotReady: When the clone's shards do not start in time.
        """
        original, timeout = self._generation(name, source), f"{self._options.timeout_seconds:g}s"
        health_timeout = f"{self._options.timeout_seconds / 2:g}s"
        settings = {"index.number_of_replicas": self._options.num_replicas, "index.blocks.write": None}
        self.remove(name, number)
        with mapped():
            health = self._client.cluster.health(index=original, wait_for_status="green", timeout=health_timeout)
            if health["status"] != "green":
                raise FailedPrecondition(
                    f"index {original!r} is {health['status']}, and Elasticsearch clones green ones alone: give the "
                    "index the nodes for its copies, or lower its number_of_replicas",
                    reason="BACKEND_NOT_GREEN",
                )
            reply = self._client.indices.clone(
                index=original, target=self._generation(name, number), settings=settings, timeout=timeout
            )
        if not reply["shards_acknowledged"]:
            self.remove(name, number)
            raise NotReady("Elasticsearch: the clone's shards did not start in time", reason="BACKEND_UNAVAILABLE")

    def freeze(self, name: str, number: int) -> None:
        """Returns when nobody can write to a generation; what had begun is done."""
        with mapped():
            self._client.indices.add_block(index=self._generation(name, number), block="write")

    def thaw(self, name: str, number: int) -> None:
        """The inverse of `freeze`."""
        with mapped():
            self._client.indices.put_settings(
                index=self._generation(name, number), settings={"index.blocks.write": None}
            )

    def point(self, name: str, number: int) -> None:
        """Makes the collection's alias name this generation instead of another, in one step."""
        others = {"index": self._generation(name, "*"), "alias": self._alias(name), "must_exist": False}
        chosen = {"index": self._generation(name, number), "alias": self._alias(name)}
        with mapped():
            self._client.indices.update_aliases(actions=[{"remove": others}, {"add": chosen}])

    def remove(self, name: str, number: int) -> None:
        """Removes a generation's documents; an absent one is no error."""
        with mapped():
            self._client.indices.delete(index=self._generation(name, number), ignore_unavailable=True)

    def _alias(self, name: str) -> str:
        return f"{self._options.prefix}.{name}"

    def _generation(self, name: str, number: int | str) -> str:
        return f"{self._alias(name)}.g{number}"

    def _records(self, name: str) -> str:
        return f"{self._alias(name)}.records"
