"""A Milvus server, or milvus-lite in this process, and the collections in it.

A collection NAME is a Milvus collection PREFIX_gN_NAME for each generation N, the alias PREFIX_a_NAME, which names the
one that is served, and PREFIX_r_NAME for its records, whose record "head", the ledger, makes the collection exist.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pymilvus

from retriever_service.backends.milvus.errors import mapped
from retriever_service.backends.milvus.schema import (
    documents_indexes,
    documents_schema,
    records_indexes,
    records_schema,
)
from retriever_service.backends.milvus.store import MilvusStore
from retriever_service.backends.remote import Abilities, Record, RecordKind, refuse
from retriever_service.collection import CollectionSettings
from serving.errors import FailedPrecondition

_KIND = "milvus"
_FLOOR, _WITH_BM25 = (2, 3), (2, 5)
_EXACT = "FLAT"
_ESCAPES = {"-": "__h", "_": "__u"}  # Milvus's names have no hyphen.


@dataclass(frozen=True, slots=True)
class MilvusOptions:
    """How to reach a server, and what indexes to make there.

    Attributes:
        url: http(s)://host:port, or a file name for milvus-lite.
        token: "user:password" or an API key, or "".
        ca_file: Certificates to trust, or "" for the system's.
        index_type: Of the vectors: HNSW, FLAT, AUTOINDEX, IVF_FLAT, ...
        prefix: Of every collection's name.
        timeout_seconds: Of one call.
    """

    url: str
    token: str = ""
    ca_file: str = ""
    index_type: str = "HNSW"
    prefix: str = "rag"
    timeout_seconds: float = 10.0


class MilvusServer:
    """Finds, makes, opens and drops collections. Any thread."""

    def __init__(self, options: MilvusOptions) -> None:
        """Prepares; `connect` connects."""
        self._options = options
        self._connection: pymilvus.MilvusClient | None = None
        self._has_lexical = self._is_lite = False
        self._locks: dict[str, threading.Lock] = {}

    def connect(self) -> Abilities:
        """Reaches the server and probes what it can do.

        Raises:
            FailedPrecondition: When it is older than can be used.
        """
        options = self._options
        tls: dict[str, Any] = {"secure": True, "server_pem_path": options.ca_file} if options.ca_file else {}
        with mapped():
            self._connection = pymilvus.MilvusClient(
                uri=options.url, token=options.token, timeout=options.timeout_seconds, **tls
            )
            version = str(self._connection.get_server_version())
        self._is_lite = is_lite = version.startswith("milvus_lite")
        numbers = version_numbers(version)
        if numbers < _FLOOR and not is_lite:
            raise FailedPrecondition(
                f"Milvus {version} is too old: {'.'.join(map(str, _FLOOR))} or newer is needed",
                reason="BACKEND_TOO_OLD",
            )
        self._has_lexical = is_lite or numbers >= _WITH_BM25
        return Abilities(
            f"{_KIND} {version.removeprefix('v')}, {options.index_type}",
            lexical=self._has_lexical,
            tf_idf=False,
            is_exact=options.index_type == _EXACT,
            has_one_writer=True,
        )

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()

    def names(self) -> list[str]:
        """The collections there are, in order."""
        prefix = self._records("")
        with mapped():
            found = self._client.list_collections()
        names = sorted(_unescaped(name.removeprefix(prefix)) for name in found if name.startswith(prefix))
        return [name for name in names if self.ledger(name) is not None]

    def create(self, settings: CollectionSettings, ledger: Mapping[str, Any]) -> None:
        """Makes an empty collection where there is none; complete when its ledger is written, which comes last."""
        name = settings.name
        self.drop(name)  # What an interrupted `create` has left.
        self.make(settings, 1)
        with mapped():
            self._client.create_alias(self._generation(name, 1), self._alias(name))
            self._client.create_collection(self._records(name), schema=records_schema())
            self._client.create_index(self._records(name), records_indexes(), sync=False)
        self.open(settings, 1).put_record(RecordKind.LEDGER, "", Record(ledger))

    def open(self, settings: CollectionSettings, number: int) -> MilvusStore:
        """A generation of an existing collection, loaded into the server's memory; it stays there until removed."""
        documents, records = self._generation(settings.name, number), self._records(settings.name)
        with mapped():
            for collection in (documents, records):
                self._client.load_collection(collection)
        lock, timeout = self._locks.setdefault(settings.name, threading.Lock()), self._options.timeout_seconds
        return MilvusStore(self._client, settings, number, documents, records, timeout, lock, is_lite=self._is_lite)

    def ledger(self, name: str) -> Mapping[str, Any] | None:
        """The ledger of a collection; None where there is none."""
        with mapped():
            if not self._client.has_collection(self._records(name)):
                return None
            self._client.load_collection(self._records(name))
            found = self._client.query(
                self._records(name),
                filter=f'key == "{RecordKind.LEDGER}"',
                output_fields=["value"],
                consistency_level="Strong",
            )
        value: Mapping[str, Any] | None = found[0]["value"] if found else None
        return value

    def drop(self, name: str) -> None:
        """Removes a collection with every generation, its ledger first."""
        generation = re.compile(rf"{self._options.prefix}_g\d+_{_escaped(name)}")
        with mapped():
            if self._client.has_collection(self._records(name)):
                self._client.drop_collection(self._records(name))
            for collection in filter(generation.fullmatch, self._client.list_collections()):
                if self._alias(name) in self._client.list_aliases(collection)["aliases"]:
                    self._client.drop_alias(self._alias(name))
                self._client.drop_collection(collection)

    def make(self, settings: CollectionSettings, number: int) -> None:
        """Makes a generation without documents."""
        collection, has_lexical = self._generation(settings.name, number), self._has_lexical
        schema = documents_schema(settings, has_lexical=has_lexical)
        indexes = documents_indexes(self._options.index_type, has_lexical=has_lexical)
        self.remove(settings.name, number)
        with mapped():
            self._client.create_collection(collection, schema=schema)
            self._client.create_index(collection, indexes, sync=False)  # Of nothing: there is nothing to wait for.

    def clone(self, name: str, source: int, number: int) -> None:
        """Not in Milvus: documents are copied page by page, through this process."""
        raise refuse(_KIND, "copy of a collection within the server", "copy its documents")

    def freeze(self, name: str, number: int) -> None:
        """Nothing: one retriever writes to a collection in Milvus, and it waits."""

    def thaw(self, name: str, number: int) -> None:
        """Nothing, as `freeze`."""

    def point(self, name: str, number: int) -> None:
        """Makes the collection's alias name this generation instead of another, in one step."""
        with mapped():
            self._client.alter_alias(self._generation(name, number), self._alias(name))

    def remove(self, name: str, number: int) -> None:
        """Removes a generation's documents; an absent one is no error."""
        with mapped():
            if self._client.has_collection(self._generation(name, number)):
                self._client.drop_collection(self._generation(name, number))

    @property
    def _client(self) -> pymilvus.MilvusClient:
        assert self._connection is not None, "connect first"
        return self._connection

    def _alias(self, name: str) -> str:
        return f"{self._options.prefix}_a_{_escaped(name)}"

    def _generation(self, name: str, number: int) -> str:
        return f"{self._options.prefix}_g{number}_{_escaped(name)}"

    def _records(self, name: str) -> str:
        return f"{self._options.prefix}_r_{_escaped(name)}"


def version_numbers(version: str) -> tuple[int, ...]:
    """Major and minor of what a server says of itself; (0, 0) where it says nothing of the kind."""
    found = re.search(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else (0, 0)


def _escaped(name: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in name)


def _unescaped(name: str) -> str:
    for character, escape in _ESCAPES.items():
        name = name.replace(escape, character)
    return name
