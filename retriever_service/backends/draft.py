"""What a batch of writes does to a collection, worked out before anything is written. Pure.

It is `transaction.Transaction` over documents in memory: the same outcomes on every backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from retriever_service.backends.remote import Document
from retriever_service.batch import EncodedPassage, ItemOutcome, Outcome, Patch
from retriever_service.collection import Passage
from retriever_service.limits import LIMITS, check_count
from retriever_service.transaction import passage_columns


class Draft:
    """The documents that a write concerns, as they were and as they are to be.

    Attributes:
        incomplete_sources: Sources whose content left with a passage that was kept for another source: their next
            ingestion brings it back.
    """

    def __init__(self, documents: Iterable[Document], first_row: int) -> None:
        """Starts from what is stored: at least all of the ids, contents and sources that are written.

        Args:
            documents: With vectors.
            first_row: New rows, and sequences, count from here.
        """
        self._documents: dict[str, Document] = {one.passage.id: one for one in documents}
        self._ids = {one.passage.content_digest: one.passage.id for one in self._documents.values()}
        self._before = dict(self._documents)
        self._first_row = self._next_row = first_row
        self.incomplete_sources: set[str] = set()

    @property
    def num_rows(self) -> int:
        """Rows and sequences used."""
        return self._next_row - self._first_row

    def put(self) -> list[Document]:
        """Documents that are new or changed."""
        return [one for id_, one in self._documents.items() if self._before.get(id_) is not one]

    def removed(self) -> list[str]:
        """Ids that are gone."""
        return [id_ for id_ in self._before if id_ not in self._documents]

    def upsert(self, item: EncodedPassage, stale: set[str]) -> ItemOutcome:
        """Writes one passage. A stale passage of the same content takes the new id: only its place has moved."""
        passage = item.passage
        holder = self._documents.get(self._ids.get(passage.content_digest, ""))
        stored = self._documents.get(passage.id)
        if holder is not None and holder.passage.id != passage.id and holder.passage.id not in stale:
            if stored is not None:  # The id's former text is no longer what the caller wants found.
                self.remove(passage.id)
            self._remember_duplicate(holder, passage.source)
            return ItemOutcome(Outcome.DUPLICATE, duplicate_of=holder.passage.id)
        if stored is not None and stored is not holder:
            self.remove(passage.id)
        if holder is not None:
            stale.discard(holder.passage.id)
            if not item.is_given or holder.vector.tobytes() == item.vector.tobytes():
                return self._patch(holder, passage)
            self.remove(holder.passage.id)
        row = self._take_row()
        self._keep(Document(row, replace(passage, sequence=row), item.vector))
        return ItemOutcome(Outcome.INSERTED if stored is None and holder is None else Outcome.UPDATED)

    def patch(self, id_: str, change: Patch) -> bool:
        """Changes one passage's metadata; whether that made a difference.

        Raises:
            InvalidRequest: When it would have more fields than it may.
        """
        document = self._documents[id_]
        kept = {name: value for name, value in document.passage.metadata.items() if name not in change.remove}
        metadata = {**kept, **change.set}
        check_count(len(metadata), LIMITS.max_metadata_fields, f"metadata of passage {id_!r}")
        outcome = self._patch(document, replace(document.passage, metadata=metadata))
        return outcome.outcome is Outcome.UPDATED

    def remove(self, id_: str) -> None:
        """Removes one passage."""
        document = self._documents.pop(id_)
        self._ids.pop(document.passage.content_digest, None)
        self.incomplete_sources.update(document.duplicate_sources)

    def _patch(self, document: Document, passage: Passage) -> ItemOutcome:
        if passage_columns(document.passage) == passage_columns(passage):
            return ItemOutcome(Outcome.UNCHANGED)
        del self._documents[document.passage.id]
        self._keep(replace(document, passage=replace(passage, sequence=self._take_row())))
        return ItemOutcome(Outcome.UPDATED)

    def _remember_duplicate(self, holder: Document, source: str) -> None:
        known = holder.duplicate_sources
        if source and source != holder.passage.source and source not in known:
            self._documents[holder.passage.id] = replace(holder, duplicate_sources=(*known, source))

    def _keep(self, document: Document) -> None:
        self._documents[document.passage.id] = document
        self._ids[document.passage.content_digest] = document.passage.id

    def _take_row(self) -> int:
        self._next_row += 1
        return self._next_row - 1


def source_values(
    draft: Draft, sources: Mapping[str, str], put: Sequence[Document], known: Iterable[str], now: float
) -> dict[str, dict[str, object]]:
    """The records to write: sources given with their digest, sources of passages, and those no longer complete."""
    named = {one.passage.source for one in put if one.passage.source} - set(known)
    values = dict.fromkeys(sorted(named | draft.incomplete_sources), "") | dict(sources)
    return {name: {"digest": digest, "updated_at": now if name in sources else 0.0} for name, digest in values.items()}
