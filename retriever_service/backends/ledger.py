"""The ledger of a remote collection: the one record that says which generations it has and how far it is written.

Each write takes its row numbers from the ledger first and tells the ledger when it is done, which gives the write its
sequence number. So a sequence number covers every write that returned before it, whoever made it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from retriever_service.backends.remote import Moved, Record, RecordKind, RemoteStore
from retriever_service.collection import CollectionSettings
from retriever_service.generations import Erasure
from retriever_service.stored_settings import settings_from_json, settings_to_json
from serving.errors import FailedPrecondition, NotFound, Overloaded

LEASE_SECONDS = 60.0
_MAX_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """A frozen generation. Moments are Unix time in seconds.

    Attributes:
        settings: Its own.
        label: For people.
        sequence: The last write that it includes.
        num_passages: When it was frozen, or last purged.
        created_at: When it was frozen.
        erased_at: The write that purged it last; 0 for none.
    """

    settings: CollectionSettings
    label: str
    sequence: int
    num_passages: int
    created_at: float
    erased_at: int = 0


@dataclass(frozen=True, slots=True)
class Following:
    """A generation that is made beside the head and follows it.

    Attributes:
        number: Its own.
        settings: Its own.
        sequence: The head's last write that it includes.
        is_complete: It has every passage, and can be served.
    """

    number: int
    settings: CollectionSettings
    sequence: int = 0
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may do something that one retriever at a time may do, and until when (Unix time in seconds)."""

    owner: str
    until: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """A collection's ledger. Numbers name generations and are never used twice.

    Attributes:
        settings: The head's.
        store_id: Names this collection and no later one of the same name.
        last: The last number given to a row or to a write.
        sequence: Of the last write that is done.
        created_at: Unix time in seconds.
        updated_at: The same.
        revision: Counts the changes of the ledger.
        head: The generation that takes the writes.
        active: The one that is served.
        next_number: The next generation's number.
        is_held: Writes wait: another generation is about to take them.
        kept: The frozen generations.
        successor: The generation that follows the head.
        leases: Who changes generations (`generations`), who writes to the successor (`successor`).
        erasure: A purge that is not finished.
    """

    settings: CollectionSettings
    store_id: str
    last: int = 0
    sequence: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    revision: int = 0
    head: int = 1
    active: int = 1
    next_number: int = 2
    is_held: bool = False
    kept: Mapping[int, Kept] = field(default_factory=dict)
    successor: Following | None = None
    leases: Mapping[str, Lease] = field(default_factory=dict)
    erasure: Erasure | None = None

    @property
    def followed_by(self) -> int:
        """The successor's number; 0 for none."""
        return self.successor.number if self.successor else 0

    @property
    def numbers(self) -> list[int]:
        """Every generation that can be served, ascending."""
        complete = [self.followed_by] if self.successor and self.successor.is_complete else []
        return sorted([self.head, *self.kept, *complete])

    def settings_of(self, number: int) -> CollectionSettings:
        """A generation's settings."""
        return self.settings if number == self.head else self._beside(number).settings

    def sequence_of(self, number: int) -> int:
        """The last write that a generation includes."""
        return self.sequence if number == self.head else self._beside(number).sequence

    def check_exists(self, number: int) -> None:
        """Checks that a generation can be served.

        Raises:
            NotFound: When it cannot; the message names those that can.
        """
        if number not in self.numbers:
            raise NotFound(
                f"collection {self.settings.name!r} has no index generation {number}; there are "
                f"{', '.join(map(str, self.numbers))}; the active one is {self.active}",
                reason="INDEX_GENERATION_NOT_FOUND",
            )

    def followed(self, later: Ledger) -> Ledger:
        """The same collection's ledger, read later.

        Raises:
            FailedPrecondition: When it is another collection's of the same name.
        """
        if later.store_id != self.store_id:
            raise FailedPrecondition(
                f"collection {self.settings.name!r} was made anew by another retriever: restart this one",
                reason="COLLECTION_REPLACED",
            )
        return later

    def _beside(self, number: int) -> Kept | Following:
        """A generation that is not the head."""
        if self.successor is not None and number == self.successor.number:
            return self.successor
        if number not in self.kept:
            self.check_exists(number)
        return self.kept[number]

    def leased(self, what: str, owner: str) -> Ledger:
        """The ledger in which `owner` has a lease, for `LEASE_SECONDS` from now.

        Raises:
            FailedPrecondition: When another has it.
        """
        if self.is_leased(what, owner):
            raise FailedPrecondition(
                f"another retriever is changing the index generations of collection {self.settings.name!r}",
                reason="GENERATIONS_CHANGING",
            )
        return replace(self, leases={**self.leases, what: Lease(owner, time.time() + LEASE_SECONDS)})

    def released(self, what: str, owner: str) -> Ledger:
        """The ledger in which `owner` has this lease no more."""
        held = self.leases.get(what)
        rest = {key: one for key, one in self.leases.items() if key != what}
        return replace(self, leases=rest) if held is not None and held.owner == owner else self

    def is_leased(self, what: str, owner: str = "") -> bool:
        """Whether anybody but `owner` has this lease now."""
        held = self.leases.get(what)
        return held is not None and held.owner != owner and held.until > time.time()

    def to_value(self) -> dict[str, Any]:
        """As a record's value."""
        return {
            **asdict(self),
            "settings": _settings_to(self.settings),
            "kept": {str(number): _with_settings(one) for number, one in self.kept.items()},
            "successor": self.successor and _with_settings(self.successor),
        }


def ledger_from(value: Mapping[str, Any]) -> Ledger:
    """The inverse of `Ledger.to_value`; of what was written before there were generations, too."""
    successor, erasure = value.get("successor"), value.get("erasure")
    return Ledger(
        **{
            **value,
            "settings": _settings_from(value),
            "kept": {
                int(number): Kept(**{**one, "settings": _settings_from(one)})
                for number, one in value.get("kept", {}).items()
            },
            "successor": successor and Following(**{**successor, "settings": _settings_from(successor)}),
            "leases": {what: Lease(**one) for what, one in value.get("leases", {}).items()},
            "erasure": erasure and Erasure(tuple(erasure["ids"]), tuple(erasure["sources"])),
        }
    )


def read_ledger(store: RemoteStore) -> Ledger:
    """The ledger as it is now.

    Raises:
        NotFound: When the collection was dropped.
    """
    return ledger_from(_record(store).value)


def change_ledger(store: RemoteStore, change: Callable[[Ledger], Ledger]) -> Ledger:
    """Replaces the ledger by what `change` makes of it; again when another retriever was faster.

    Raises:
        NotFound: When the collection was dropped.
        Overloaded: When others always are faster.
    """
    for _ in range(_MAX_ATTEMPTS):
        with store.updating():
            record = _record(store)
            ledger = ledger_from(record.value)
            changed = replace(change(ledger), revision=ledger.revision + 1)
            if store.put_record(RecordKind.LEDGER, "", Record(changed.to_value(), record.version)):
                return changed
    raise Overloaded("too many retrievers write to this collection", reason="CONTENTION", retry_after_seconds=1.0)


def reserve(store: RemoteStore, count: int) -> int:
    """Takes `count` numbers; returns the first."""
    return change_ledger(store, lambda ledger: replace(ledger, last=ledger.last + count)).last - count + 1


def publish(store: RemoteStore, known: Ledger) -> Ledger:
    """Says that a write is done, which gives it its sequence number.

    Args:
        store: Of the generation that was written to.
        known: The ledger that the write began with.

    Raises:
        Moved: When another generation takes the writes by now, or is about to, or another follows.
    """

    def change(ledger: Ledger) -> Ledger:
        if ledger.is_held or (ledger.head, ledger.followed_by) != (known.head, known.followed_by):
            raise Moved("the collection's index generations have changed")
        return replace(ledger, last=ledger.last + 1, sequence=ledger.last + 1, updated_at=time.time())

    return change_ledger(store, change)


def _record(store: RemoteStore) -> Record:
    record = store.record(RecordKind.LEDGER, "")
    if record is None:
        raise NotFound("the collection was dropped", reason="COLLECTION_NOT_FOUND")
    return record


def _with_settings(one: Kept | Following) -> dict[str, Any]:
    return {**asdict(one), "settings": _settings_to(one.settings)}


def _settings_to(settings: CollectionSettings) -> Any:
    return json.loads(settings_to_json(settings))


def _settings_from(value: Mapping[str, Any]) -> CollectionSettings:
    return settings_from_json(json.dumps(value["settings"]))
