"""The content of a generation, in batches that fit a message. Synchronous."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retriever_service.collection import Source
from retriever_service.store import Reader, StoredPassage
from retriever_service.transaction import index_digest

_BATCH_PASSAGES, _BATCH_SOURCES = 128, 1_000
_MAX_BATCH_BYTES = 1 << 20  # Estimated; one passage alone may be larger.


@dataclass(frozen=True, slots=True)
class Exported:
    """A batch of a generation's content.

    Attributes:
        num_total: All its passages.
        passages: Some of them.
        sources: Some of its sources.
        sequence: In the first batch: the last change that the content includes.
        index_digest: In the first batch: as in provenance.
    """

    num_total: int
    passages: Sequence[StoredPassage] = ()
    sources: Sequence[Source] = ()
    sequence: int = 0
    index_digest: str = ""


def export(reader: Reader, *, encoder_digest: str, with_vectors: bool) -> Iterator[Exported]:
    """First what the content is, then every passage by ascending row, then every source."""
    num_total = reader.num_passages()
    digest = index_digest(reader, encoder_digest)
    yield Exported(num_total, sequence=reader.last_sequence(), index_digest=digest)
    for stored in reader.scan_passages(_BATCH_PASSAGES, with_vectors=with_vectors):
        for batch in _fitting(stored):
            yield Exported(num_total, batch)
    after = ""
    while True:
        page = reader.list_sources("", after, _BATCH_SOURCES)
        if page.items:
            yield Exported(num_total, sources=page.items)
        after = page.next_after
        if not after:
            return


def _fitting(stored: Sequence[StoredPassage]) -> Iterator[list[StoredPassage]]:
    batch: list[StoredPassage] = []
    num_bytes = 0
    for one in stored:
        size = _num_bytes(one)
        if batch and num_bytes + size > _MAX_BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
        batch.append(one)
        num_bytes += size
    yield batch


def _num_bytes(stored: StoredPassage) -> int:
    passage = stored.passage
    metadata = sum(len(str(value)) for value in passage.metadata.values())
    vector = 0 if stored.vector is None else stored.vector.nbytes
    return 4 * (len(passage.title) + len(passage.text) + len(passage.source) + metadata) + vector
