"""Reads a remote collection, as `store.Reader` reads a local one."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retriever_service.backends.ledger import Ledger, read_ledger
from retriever_service.backends.remote import Document, RecordKind, RemoteStore, pages, rows_of
from retriever_service.collection import Passage, Rows, Source, Vectors
from retriever_service.filters import AllOf, Condition, Equals, Filter
from retriever_service.store import EVERYTHING, Page, StoredPassage
from retriever_service.transaction import CONTENT_SUM, passage_columns
from retriever_service.vectors import PassageVectors

_MAX_PAGE_CHARS = 2 * 1024 * 1024  # So that a page fits into a message.
_VERSIONS_PER_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class State:
    """How far a generation is written. Its content is named by the last write, not summed up. Moments are Unix time."""

    sequence: int
    content: str
    created_at: float
    updated_at: float


def state_of(ledger: Ledger, number: int) -> State:
    """The state of a generation, as the ledger has it."""
    kept, sequence = ledger.kept.get(number), ledger.sequence_of(number)
    erased = f" {kept.erased_at}" if kept is not None and kept.erased_at else ""
    updated_at = ledger.updated_at if kept is None else kept.created_at
    return State(sequence, f"{ledger.store_id} {sequence}{erased}", ledger.created_at, updated_at)


class RemoteReader:
    """Reads a generation for one request. Documents are read once; with a filter, none outside of it is seen."""

    def __init__(
        self,
        store: RemoteStore,
        number: int,
        dim: int,
        *,
        matching: Filter | None = None,
        state: State | None = None,
        see: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares.

        Args:
            store: What to read.
            number: The generation's.
            dim: D of its vectors.
            matching: What rows must match, besides existing.
            state: The generation's, where it is known already.
            see: Makes searches see what was written; called before what lists or counts.
        """
        self._store, self._number, self._dim, self._matching = store, number, dim, matching
        self._documents: dict[int, Document] = {}
        self._known, self._see = state, see

    def keep(self, documents: Sequence[Document]) -> None:
        """Takes documents that a search has brought, so that they are not read again."""
        self._documents |= {one.row: one for one in documents}

    def meta(self, key: str, default: str = "") -> str:
        """A value of the collection itself."""
        state = self._state()
        known = {"created_at": state.created_at, "updated_at": state.updated_at, CONTENT_SUM: state.content}
        return str(known.get(key, default))

    def last_sequence(self) -> int:
        """Of the last write."""
        return self._state().sequence

    def num_passages(self, condition: Condition = EVERYTHING) -> int:
        """Passages that match."""
        self._see()
        return self._store.count(condition.matching)

    def num_sources(self) -> int:
        """Sources that have a record."""
        self._see()
        return self._store.count_records(RecordKind.SOURCE, "")

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """The vectors of those rows that exist: ascending rows (N,) and vectors (N, D)."""
        found = sorted(self._by_rows(rows.tolist()), key=lambda one: one.row)
        vectors = np.stack([one.vector for one in found]) if found else np.empty((0, self._dim), np.float32)
        return rows_of(found), vectors

    def passages(self, rows: Rows) -> dict[int, Passage]:
        """The passages of those rows that exist."""
        return {one.row: one.passage for one in self._by_rows(rows.tolist())}

    def passages_by_id(self, ids: Sequence[str]) -> dict[str, tuple[int, Passage]]:
        """(row, passage) of those ids that exist."""
        found = self._store.by_ids(ids)
        self.keep(found)
        return {one.passage.id: (one.row, one.passage) for one in found}

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, PassageVectors]:
        """Vectors of stored passages by content digest (hex)."""
        return {one.passage.content_digest: PassageVectors(one.vector) for one in self._store.by_digests(digests)}

    def rows_beside(self, passage: Passage, count: int) -> list[int]:
        """Rows of the `count` passages before and after one in its source, in order; those that match alone.

        It reads the whole source: engines do not agree on how to ask for less.
        """
        if not passage.source:
            return []
        is_placed = passage.span is not None
        of_source = AllOf((Equals("source", passage.source), *([] if self._matching is None else [self._matching])))
        found = [one for page in pages(self._store, of_source) for one in page]
        others = [one for one in found if (one.passage.span is not None) == is_placed and one.passage.id != passage.id]
        others.sort(key=lambda one: _place(one.passage))
        position = bisect.bisect(others, _place(passage), key=lambda one: _place(one.passage))
        return [one.row for one in others[max(0, position - count) : position + count]]

    def list_passages(self, condition: Condition, after: str, size: int) -> Page:
        """A page of matching passages in id order; shorter than `size` where their texts are long."""
        self._see()
        found = self._store.page(condition.matching, after, size + 1)
        items: list[Passage] = []
        num_chars = 0
        while len(items) < min(size, len(found)) and num_chars <= _MAX_PAGE_CHARS:
            items.append(found[len(items)].passage)
            num_chars += len(items[-1].text)
        is_last = len(items) == len(found)
        return Page(tuple(items), "" if is_last else items[-1].id, self.num_passages(condition))

    def list_sources(self, prefix: str, after: str, size: int) -> Page:
        """A page of sources whose name starts with `prefix`, in name order."""
        self._see()
        found = self._store.record_page(RecordKind.SOURCE, prefix, after, size + 1)
        counts = self._store.count_by_source([name for name, _ in found[:size]])
        items = tuple(
            Source(name, str(value["digest"]), counts[name], float(value["updated_at"])) for name, value in found[:size]
        )
        total = self._store.count_records(RecordKind.SOURCE, prefix)
        return Page(items, items[-1].name if len(found) > size else "", total)

    def scan_passages(self, batch_size: int, *, with_vectors: bool) -> Iterator[list[StoredPassage]]:
        """Every passage, batch by batch, in id order."""
        self._see()
        for documents in self._store.scan(batch_size, with_vectors=with_vectors):
            yield [StoredPassage(one.passage, one.vector if with_vectors else None) for one in documents]

    def scan_versions(self) -> Iterator[tuple[str, tuple[object, ...]]]:
        """(id, what makes two passages of this id equal) of every passage, in id order."""
        self._see()
        for documents in self._store.scan(_VERSIONS_PER_BATCH, with_vectors=False):
            yield from ((one.passage.id, passage_columns(one.passage)) for one in documents)

    def _state(self) -> State:
        self._known = self._known or state_of(read_ledger(self._store), self._number)
        return self._known

    def _by_rows(self, rows: Sequence[int]) -> list[Document]:
        missing = [row for row in rows if row not in self._documents]
        if missing:
            self.keep(self._store.by_rows(missing))
        return [self._documents[row] for row in rows if row in self._documents]


def _place(passage: Passage) -> tuple[int, bytes]:
    return (passage.span.start_char if passage.span else 0, passage.id.encode())
