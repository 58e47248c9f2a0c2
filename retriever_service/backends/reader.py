"""Reads a remote collection, as `store.Reader` reads a local one."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import numpy as np

from retriever_service.backends.head import Head, read_head
from retriever_service.backends.remote import Document, RemoteStore, pages, rows_of
from retriever_service.collection import Passage, Rows, Source, Vectors
from retriever_service.filters import AllOf, Condition, Equals, Filter
from retriever_service.store import EVERYTHING, Page
from retriever_service.transaction import CONTENT_SUM

_MAX_PAGE_CHARS = 2 * 1024 * 1024  # So that a page fits into a message.


class RemoteReader:
    """Reads for one request. Documents are read once; with a filter, none outside of it is seen."""

    def __init__(
        self,
        store: RemoteStore,
        dim: int,
        *,
        matching: Filter | None = None,
        head: Head | None = None,
        see: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares.

        Args:
            store: What to read.
            dim: D of its vectors.
            matching: What rows must match, besides existing.
            head: The collection's, where it is known already.
            see: Makes searches see what was written; called before what lists or counts.
        """
        self._store, self._dim, self._matching = store, dim, matching
        self._documents: dict[int, Document] = {}
        self._head, self._see = head, see

    def keep(self, documents: Sequence[Document]) -> None:
        """Takes documents that a search has brought, so that they are not read again."""
        self._documents |= {one.row: one for one in documents}

    def head(self) -> Head:
        """The collection's head, read once."""
        self._head = self._head or read_head(self._store)
        return self._head

    def meta(self, key: str, default: str = "") -> str:
        """A value of the collection itself. Its content is named by the last write, not summed up."""
        head = self.head()
        known = {
            "created_at": head.created_at,
            "updated_at": head.updated_at,
            CONTENT_SUM: f"{head.store_id} {head.sequence}",
        }
        return str(known.get(key, default))

    def last_sequence(self) -> int:
        """Of the last write."""
        return self.head().sequence

    def num_passages(self, condition: Condition = EVERYTHING) -> int:
        """Passages that match."""
        self._see()
        return self._store.count(condition.matching)

    def num_sources(self) -> int:
        """Sources that have a record."""
        self._see()
        return self._store.count_sources("")

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

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, Vectors]:
        """Vectors (D,) of stored passages by content digest (hex)."""
        return {one.passage.content_digest: one.vector for one in self._store.by_digests(digests)}

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
        found = self._store.source_page(prefix, after, size + 1)
        counts = self._store.count_by_source([name for name, _ in found[:size]])
        items = tuple(
            Source(name, str(value["digest"]), counts[name], float(value["updated_at"])) for name, value in found[:size]
        )
        return Page(items, items[-1].name if len(found) > size else "", self._store.count_sources(prefix))

    def _by_rows(self, rows: Sequence[int]) -> list[Document]:
        missing = [row for row in rows if row not in self._documents]
        if missing:
            self.keep(self._store.by_rows(missing))
        return [self._documents[row] for row in rows if row in self._documents]


def _place(passage: Passage) -> tuple[int, bytes]:
    return (passage.span.start_char if passage.span else 0, passage.id.encode())
