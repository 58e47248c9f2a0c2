"""One upsert stream: checks each passage, finds or makes its vector, commits in batches, keeps the tally."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from retriever_service.backends.protocol import OpenCollection
from retriever_service.batch import Batch, EncodedPassage, ItemOutcome, Outcome, Written
from retriever_service.collection import Passage, Source, Vectors, check_passage
from retriever_service.encoder import PassageText
from retriever_service.encoding import Encoding
from retriever_service.limits import LIMITS, check_count, check_text
from retriever_service.live_collection import EncoderChanged
from retriever_service.passage_vectors import embed_passages
from retriever_service.vectors import PassageVectors, check_vector
from serving.errors import FailedPrecondition, InvalidRequest, RagError

BATCH_SIZE = 64  # Passages per transaction. What an interrupted stream has committed is not encoded again.


@dataclass(frozen=True, slots=True)
class UpsertItem:
    """One passage to write, with its vector (D,) where the caller has it; `error` where it cannot be taken as sent."""

    passage: Passage
    vector: Vectors | None = None
    error: RagError | None = None


@dataclass(frozen=True, slots=True)
class UpsertMessage:
    """One message of a stream; `replaces_sources` counts in the first."""

    collection: str
    items: Sequence[UpsertItem]
    sources: Sequence[Source] = ()
    replaces_sources: bool = False


@dataclass(slots=True)
class ItemResult:
    """What became of one passage: an outcome, durable, or an error."""

    id: str
    outcome: ItemOutcome | None = None
    error: RagError | None = None


@dataclass(slots=True)
class UpsertResult:
    """What became of a stream: one result per passage, in the order sent."""

    items: list[ItemResult] = field(default_factory=list)
    sequence: int = 0
    num_deleted: int = 0

    def num(self, outcome: Outcome) -> int:
        """Passages with this outcome."""
        return sum(item.outcome is not None and item.outcome.outcome is outcome for item in self.items)


@dataclass(frozen=True, slots=True)
class _Waiting:
    passage: Passage
    vector: Vectors | None
    result: ItemResult


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A passage with its vectors and the digest of the encoder whose these are; `given` by the caller."""

    passage: Passage
    vectors: PassageVectors
    given: Vectors | None
    result: ItemResult
    encoder_digest: str

    @property
    def is_given(self) -> bool:
        return self.given is not None


class Upsert:
    """Takes a stream's messages one after the other; `finish` after the last.

    A plain stream commits every `BATCH_SIZE` passages. A replacing stream commits once, at its end, so that its
    sources are found either as they were or as they are now.
    """

    def __init__(
        self,
        collection: OpenCollection,
        encoding: Encoding,
        threads: Executor,
        *,
        replaces_sources: bool = False,
    ) -> None:
        """Prepares a stream.

        Args:
            collection: Where to.
            encoding: Runs the encoder, queries first.
            threads: For reading the store.
            replaces_sources: Whether passages of the stream's sources that it does not hold are deleted.
        """
        self._collection, self._encoding, self._threads = collection, encoding, threads
        self._replaces_sources = replaces_sources
        self._encoder_digest = collection.settings.encoder.digest  # Given vectors are of this encoder.
        self._sources: dict[str, Source] = {}
        self._incomplete_sources: set[str] = set()
        self._waiting: list[_Waiting] = []
        self._held: list[_Encoded] = []  # Of a replacing stream.
        self._num_held_bytes = 0
        self.result = UpsertResult()

    async def add(self, items: Sequence[UpsertItem], sources: Sequence[Source] = ()) -> None:
        """Takes one message.

        Raises:
            InvalidRequest: When message or stream is over a limit; what was committed before stays.
        """
        check_count(len(items), LIMITS.max_passages_per_message, "passages")
        check_count(len(self.result.items) + len(items), LIMITS.max_passages_per_stream, "passages of the stream")
        for source in sources:
            check_text(source.name, LIMITS.max_source_bytes, "sources.name", may_be_empty=False)
            check_text(source.digest, LIMITS.max_id_bytes, "sources.digest")
            self._sources[source.name] = source
        check_count(len(self._sources), LIMITS.max_sources_per_stream, "sources")
        for item in items:
            self._take(item)
        while len(self._waiting) >= BATCH_SIZE:
            await self._flush()

    async def finish(self) -> UpsertResult:
        """Commits what is left, with the sources, and returns the tally."""
        if self._replaces_sources and not self._sources:
            raise InvalidRequest("replace_sources needs sources to replace", field="sources")
        encoded = self._held + await self._encode(self._waiting)
        self._waiting = []
        batch = Batch(
            sources=[self._settled(source) for source in self._sources.values()],
            replaced_sources=list(self._sources) if self._replaces_sources else (),
            held_ids=frozenset(item.id for item in self.result.items),
        )
        await self._write(encoded, batch)
        return self.result

    def _take(self, item: UpsertItem) -> None:
        result = ItemResult(item.passage.id, error=item.error)
        self.result.items.append(result)
        settings = self._collection.settings
        try:
            if item.error is not None:
                raise item.error
            passage, vector = check_passage(item.passage, settings.filterable_fields), item.vector
            if vector is not None:
                vector = check_vector(vector, settings, "vector")
        except RagError as error:
            result.error = error
            self._incomplete_sources.add(item.passage.source)
            return
        self._waiting.append(_Waiting(passage, vector, result))

    async def _flush(self) -> None:
        batch, self._waiting = self._waiting[:BATCH_SIZE], self._waiting[BATCH_SIZE:]
        encoded = await self._encode(batch)
        if self._replaces_sources:
            self._held += encoded
            self._num_held_bytes += sum(len(one.passage.text) + one.vectors.num_bytes for one in encoded)
            check_count(self._num_held_bytes, LIMITS.max_replace_bytes, "bytes of a stream with replace_sources")
            return
        await self._write(encoded, Batch())

    async def _write(self, encoded: Sequence[_Encoded], batch: Batch) -> None:
        """Commits passages and tells their results; vectors of an encoder that has been replaced are made again."""
        while True:
            digests = {one.encoder_digest for one in encoded}
            passages = [EncodedPassage(e.passage, e.vectors.whole, e.is_given, e.vectors.sentences) for e in encoded]
            try:
                if len(digests) > 1:
                    raise EncoderChanged("the collection was re-encoded meanwhile")
                async with self._collection.in_use():
                    whole = replace(batch, passages=passages, encoder_digest=next(iter(digests), ""))
                    written = await self._collection.write(whole)
            except EncoderChanged:
                encoded = await self._encode([_Waiting(e.passage, e.given, e.result) for e in encoded])
                continue
            self._account(written, [one.result for one in encoded])
            return

    async def _encode(self, batch: Sequence[_Waiting]) -> list[_Encoded]:
        """The passages with vectors: given ones, those the store has for the same content, and new ones."""
        async with self._collection.in_use():
            settings = self._collection.settings
            encoder = await self._encoding.encoder_of(
                settings.encoder, collection=settings.name, follows_server=settings.follows_server_encoder
            )
            if settings.encoder.digest != self._encoder_digest and any(one.vector is not None for one in batch):
                raise FailedPrecondition(
                    f"collection {settings.name!r} was re-encoded with {settings.encoder.name!r} while passages with "
                    "vectors of its former encoder were sent: send them again without, or with new ones",
                    reason="ENCODER_MISMATCH",
                )
            digests = [one.passage.content_digest for one in batch]
            vectors = await self._stored(digests, settings.encoder.digest)
        missing = {
            digest: PassageText(one.passage.text, one.passage.title)
            for digest, one in zip(digests, batch, strict=True)
            if one.vector is None and digest not in vectors
        }
        made = await embed_passages(self._encoding, encoder, list(missing.values()), settings)
        vectors |= zip(missing, made, strict=True)
        encoded = []
        for digest, one in zip(digests, batch, strict=True):
            own = (
                vectors[digest] if one.vector is None else PassageVectors(check_vector(one.vector, settings, "vector"))
            )
            encoded.append(_Encoded(one.passage, own, one.vector, one.result, settings.encoder.digest))
        return encoded

    async def _stored(self, digests: Sequence[str], encoder_digest: str) -> dict[str, PassageVectors]:
        """Vectors that the head has for these contents, unless it has another encoder by now."""
        found: dict[str, PassageVectors] = {}
        async with self._collection.using_head() as head:
            if head.settings.encoder.digest == encoder_digest:
                for start in range(0, len(digests), BATCH_SIZE):
                    some = digests[start : start + BATCH_SIZE]
                    reading = functools.partial(_vectors, digests=some)
                    found |= await head.read(self._threads, reading)
        return found

    def _settled(self, source: Source) -> Source:
        """The source as recorded: one with refused passages gets no digest, so that it is ingested again."""
        return replace(source, digest="") if source.name in self._incomplete_sources else source

    def _account(self, written: Written, results: Sequence[ItemResult]) -> None:
        for result, outcome in zip(results, written.outcomes, strict=True):
            result.outcome = outcome
        self.result.sequence = written.sequence
        self.result.num_deleted += written.num_deleted


def _vectors(reader: Any, digests: Sequence[str]) -> dict[str, PassageVectors]:
    found: dict[str, PassageVectors] = reader.vectors_by_digest(digests)
    return found
