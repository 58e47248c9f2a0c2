"""Writes to the head of a remote collection. One thread at a time in a process; `ledger` keeps processes apart."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from retriever_service.backends.draft import Draft, source_values
from retriever_service.backends.ledger import Ledger, publish, read_ledger, reserve
from retriever_service.backends.remote import Document, RecordKind, RemoteStore, pages
from retriever_service.batch import Batch, Patch, Written
from retriever_service.filters import Filter, In

_MAX_RECENT = 4_096
_NAMES_PER_CHANGE = 20  # Milvus's limit for a JSON value is 64 kB, ours for a source's name 2 kB.
_ABSENT = object()


class RemoteWriter:
    """Changes one collection.

    Searches may not see a write yet that has returned, so the writer remembers what it wrote since the last refresh.
    A write that fails midway may have been made in part: sending it again completes it. While a generation follows,
    each write tells the log which documents and sources it changes, before it does.

    Attributes:
        ledger: As it is when a write begins; whoever lets the writer write sets it.
    """

    ledger: Ledger

    def __init__(self, store: RemoteStore, refresh: Callable[[], None]) -> None:
        """Prepares.

        Args:
            store: Where to.
            refresh: Refreshes the store, within `refreshing`.
        """
        self._store, self._refresh = store, refresh
        self._recent: dict[str, Document | None] = {}
        self._known_sources: set[str] = set()
        self._has_sent = False  # Anything, perhaps without success, since the last refresh.
        self._owed_ids: set[str] = set()  # Written, perhaps, while nobody was known to follow.
        self._owed_sources: set[str] = set()

    @property
    def has_unrefreshed(self) -> bool:
        """Whether searches may miss something that was written here."""
        return self._has_sent or bool(self._recent)

    @contextmanager
    def refreshing(self) -> Iterator[None]:
        """What had been written before is forgotten after: searches see it. In any thread."""
        seen = dict(self._recent)
        self._has_sent = False
        yield
        for id_, document in seen.items():
            if self._recent.get(id_, _ABSENT) is document:
                self._recent.pop(id_, None)

    def write(self, batch: Batch) -> Written:
        """Writes a batch.

        It is not one transaction: sources that are replaced lose their digest, documents are put, stale ones removed,
        sources recorded. So an interrupted write leaves sources without a digest, to be ingested again.
        """
        ids = {item.passage.id for item in batch.passages}
        found = self._by_ids(sorted(ids)) + self._by_digests([item.passage.content_digest for item in batch.passages])
        stale: set[str] = set()
        if batch.replaced_sources:
            self._refresh()
            of_sources = self._matching(In("source", tuple(batch.replaced_sources)))
            stale = {one.passage.id for one in of_sources} - batch.held_ids
            found += of_sources
        draft = Draft(found, reserve(self._store, len(batch.passages)) if batch.passages else 0)
        outcomes = tuple(draft.upsert(item, stale) for item in batch.passages)
        for id_ in sorted(stale):
            draft.remove(id_)
        sources = {source.name: source.digest for source in batch.sources}
        sequence = self._commit(draft, sources, cleared=batch.replaced_sources)
        return Written(outcomes, len(stale), sequence)

    def delete(self, matching: Filter, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`."""
        self._refresh()
        num_deleted, sequence = 0, 0
        for found in pages(self._store, matching):
            draft = Draft(found, 0)
            for one in found:
                draft.remove(one.passage.id)
            sequence = self._commit(draft, {})
            num_deleted += len(found)
        if sources:
            with self._logged((), sources):
                self._has_sent = True
                self._store.remove_records(RecordKind.SOURCE, sources)
                self._known_sources -= set(sources)
                sequence = publish(self._store, self.ledger).sequence
        return Written((), num_deleted, sequence or read_ledger(self._store).sequence)

    def patch(self, matching: Filter, change: Patch) -> Written:
        """Changes the metadata of matching passages."""
        self._refresh()
        num_patched = 0
        for found in pages(self._store, matching):
            draft = Draft(self._store.by_ids([one.passage.id for one in found]), reserve(self._store, len(found)))
            num_patched += sum(draft.patch(one.passage.id, change) for one in found)
            self._commit(draft, {})
        return Written((), 0, read_ledger(self._store).sequence, num_patched)

    def _commit(self, draft: Draft, sources: dict[str, str], cleared: Sequence[str] = ()) -> int:
        """Writes a draft and says so, returning its sequence; a draft that changes nothing changes no sequence.

        Args:
            draft: What is to be.
            sources: Recorded with their digest at the end.
            cleared: Sources that lose their digest at the beginning.
        """
        put, removed = draft.put(), draft.removed()
        known = self._recorded({one.passage.source for one in put if one.passage.source})
        values = source_values(draft, sources, put, known, time.time())
        if not (put or removed or values or cleared or self._owed_ids or self._owed_sources):
            return read_ledger(self._store).sequence
        with self._logged([one.passage.id for one in put] + removed, {*values, *cleared}):
            self._has_sent = True
            if cleared:
                nothing = {"digest": "", "updated_at": 0.0}
                self._store.put_records(RecordKind.SOURCE, dict.fromkeys(cleared, nothing))
            if put:
                self._store.put(put)
            if removed:
                self._store.remove(removed)
            self._recent |= {one.passage.id: one for one in put} | dict.fromkeys(removed)
            if values:
                self._store.put_records(RecordKind.SOURCE, values)
                self._known_sources |= values.keys()
            sequence = publish(self._store, self.ledger).sequence
        if len(self._recent) > _MAX_RECENT:
            self._refresh()
        return sequence

    @contextmanager
    def _logged(self, ids: Iterable[str], sources: Iterable[str]) -> Iterator[None]:
        """Tells the log of a write, before it, and that it is done, after; for as long as a generation follows.

        What is not done may still be written: the follower looks at it again. A write that meets a new follower is
        made again, and logged then with what it had written already.
        """
        self._owed_ids |= set(ids)
        self._owed_sources |= set(sources)
        changes = self._changes() if self.ledger.successor else {}
        if changes:
            self._store.put_records(RecordKind.CHANGE, changes)
        yield
        if changes:
            done = {name: {**change, "is_done": True} for name, change in changes.items()}
            self._store.put_records(RecordKind.CHANGE, done)
        self._owed_ids.clear()
        self._owed_sources.clear()

    def _changes(self) -> dict[str, dict[str, object]]:
        ids, sources = sorted(self._owed_ids), sorted(self._owed_sources)
        starts = range(0, max(len(ids), len(sources)), _NAMES_PER_CHANGE)
        return {
            uuid.uuid4().hex: {
                "ids": ids[start : start + _NAMES_PER_CHANGE],
                "sources": sources[start : start + _NAMES_PER_CHANGE],
                "is_done": False,
            }
            for start in starts
        }

    def _recorded(self, names: Iterable[str]) -> set[str]:
        """Those sources that have a record."""
        for name in set(names) - self._known_sources:
            if self._store.record(RecordKind.SOURCE, name) is not None:
                self._known_sources.add(name)
        return self._known_sources

    def _by_ids(self, ids: Sequence[str]) -> list[Document]:
        return self._store.by_ids(ids) if ids else []

    def _by_digests(self, digests: Sequence[str]) -> list[Document]:
        if not digests:
            return []
        found = [one for one in self._store.by_digests(digests) if one.passage.id not in self._recent]
        recent = {one.passage.content_digest: one for one in self._recent.values() if one is not None}
        return found + [recent[digest] for digest in set(digests) & recent.keys()]

    def _matching(self, matching: Filter) -> list[Document]:
        ids = [one.passage.id for one in chain.from_iterable(pages(self._store, matching))]
        return self._by_ids(ids)
