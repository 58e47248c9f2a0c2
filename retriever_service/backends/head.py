"""The head of a remote collection: the one record that says what it is and how far it has been written.

Each write takes its row numbers from the head first and tells the head when it is done, which gives the write its
sequence number. So a sequence number covers every write that returned before it, whoever made it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from retriever_service.backends.remote import Record, RecordKind, RemoteStore
from retriever_service.collection import CollectionSettings
from retriever_service.stored_settings import settings_from_json, settings_to_json
from serving.errors import NotFound, Overloaded

_MAX_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Head:
    """A collection's head.

    Attributes:
        settings: The collection's.
        store_id: Names this collection and no later one of the same name.
        last: The last number given to a row or to a write.
        sequence: Of the last write that is done.
        created_at: Unix time in seconds.
        updated_at: The same.
    """

    settings: CollectionSettings
    store_id: str
    last: int = 0
    sequence: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0

    def to_value(self) -> dict[str, Any]:
        """As a record's value."""
        return {
            "settings": json.loads(settings_to_json(self.settings)),
            "store_id": self.store_id,
            "last": self.last,
            "sequence": self.sequence,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


def head_from(value: Mapping[str, Any]) -> Head:
    """The inverse of `Head.to_value`."""
    return Head(**{**value, "settings": settings_from_json(json.dumps(value["settings"]))})


def read_head(store: RemoteStore) -> Head:
    """The head as it is now.

    Raises:
        NotFound: When the collection was dropped.
    """
    return head_from(_record(store).value)


def change_head(store: RemoteStore, change: Callable[[Head], Head]) -> Head:
    """Replaces the head by what `change` makes of it; again when another retriever was faster.

    Raises:
        NotFound: When the collection was dropped.
        Overloaded: When others always are faster.
    """
    for _ in range(_MAX_ATTEMPTS):
        record = _record(store)
        head = change(head_from(record.value))
        if store.put_record(RecordKind.HEAD, "", Record(head.to_value(), record.version)):
            return head
    raise Overloaded("too many retrievers write to this collection", reason="CONTENTION", retry_after_seconds=1.0)


def reserve(store: RemoteStore, count: int) -> int:
    """Takes `count` numbers; returns the first."""
    return change_head(store, lambda head: replace(head, last=head.last + count)).last - count + 1


def publish(store: RemoteStore) -> Head:
    """Says that a write is done, which gives it its sequence number."""

    def change(head: Head) -> Head:
        return replace(head, last=head.last + 1, sequence=head.last + 1, updated_at=time.time())

    return change_head(store, change)


def _record(store: RemoteStore) -> Record:
    record = store.record(RecordKind.HEAD, "")
    if record is None:
        raise NotFound("the collection was dropped", reason="COLLECTION_NOT_FOUND")
    return record
