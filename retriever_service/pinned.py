"""What a request sees of a collection: one generation, and the state from which it was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retriever_service.collection import CollectionSettings
from retriever_service.generation import Generation
from retriever_service.generations import Record
from serving.errors import NotFound


@dataclass(frozen=True, slots=True)
class Pinned:
    """The generation that a request works on, from beginning to end, with the settings that hold for it."""

    index_generation: int
    generation: Generation
    settings: CollectionSettings
    is_head: bool
    has_lexical: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """What requests see: replaced as a whole, on the event loop."""

    record: Record
    head: Generation
    opened: Mapping[int, Generation] = field(default_factory=dict)  # Besides the head.

    def find(self, number: int) -> Generation | None:
        """The open generation of this number."""
        return self.head if number == self.record.head else self.opened.get(number)

    def settings_of(self, number: int, generation: Generation) -> CollectionSettings:
        """The settings that hold for a generation."""
        scoring = self.record.scorings.get(number)
        return generation.settings if scoring is None else scoring.apply(generation.settings)

    def check_exists(self, number: int) -> None:
        """Checks that a generation can be served.

        Raises:
            NotFound: When it cannot; the message names those that can.
        """
        record = self.record
        hidden = set() if record.is_successor_complete else {record.successor}
        known = sorted(record.directories.keys() - hidden)
        if number not in known:
            raise NotFound(
                f"collection {self.head.settings.name!r} has no index generation {number}; there are "
                f"{', '.join(map(str, known))}; the active one is {record.active}",
                reason="INDEX_GENERATION_NOT_FOUND",
            )
