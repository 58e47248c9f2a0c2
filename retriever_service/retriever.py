"""The retriever: what the service does, in the domain's words. Start reading here.

A query becomes a vector (`encoding`), the vector and the text become candidates (`dense_index`, `lexical_index`), the
candidates one ranking with a log prior (`search`, `fusion`), over collections that change meanwhile
(`live_collection`, `library`) and whose truth is one SQLite file each (`store`, `writing`, `catalog`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np

from retriever_service.backends.protocol import Backend, Served
from retriever_service.batch import Outcome, Written
from retriever_service.collection import DEFAULT_COLLECTION, CollectionRequest, Metric, Vectors
from retriever_service.encoder import Encoder, EncoderInfo, EncoderInput
from retriever_service.encoder import Query as QueryText
from retriever_service.encoding import Encoded, Encoding
from retriever_service.filters import Filter, compile_filter
from retriever_service.generation import Applied
from retriever_service.library import Library
from retriever_service.limits import LIMITS, check_count, check_text
from retriever_service.maintenance import Maintenance
from retriever_service.metrics import RetrieverMetrics
from retriever_service.options import QueryInput, RetrievalOptions, mode_of
from retriever_service.reranking import Reranking
from retriever_service.search import Hit, Mode, SearchQuery
from retriever_service.selection import Selection
from retriever_service.store import EVERYTHING, Page, Reader, StoredPassage
from retriever_service.upserting import Upsert, UpsertMessage, UpsertResult
from retriever_service.vectors import check_vector, normalised
from serving.batching import BatchPolicy
from serving.deadline import Deadline, current_deadline
from serving.errors import Deadline as DeadlineExceeded
from serving.errors import InvalidRequest, RagError


@dataclass(frozen=True, slots=True)
class Origin:
    """Which artefacts an answer came from."""

    collection: str
    index_generation: int
    applied: Applied
    encoder: EncoderInfo
    state: str


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The passages of each query, or its error, in the queries' order; tau and metric as used; seconds by stage."""

    results: tuple[tuple[Hit, ...] | RagError, ...]
    origin: Origin
    temperature: float
    metric: Metric
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors (N, D) float32, and seconds by stage."""

    vectors: Vectors
    encoder: EncoderInfo
    seconds: dict[str, float]


class Retriever:
    """Finds passages for queries, and keeps the collections they are found in. For one event loop."""

    def __init__(
        self,
        catalog: Backend,
        encoding: Encoding,
        metrics: RetrieverMetrics,
        *,
        reranking: Reranking | None = None,
        num_search_threads: int = 2,
        refresh_wait_seconds: float = 1.0,
    ) -> None:
        """Takes the parts; `start` opens everything.

        Args:
            catalog: Where the collections are.
            encoding: Runs the encoders.
            metrics: Told what happens.
            reranking: Runs the reranker; None is none.
            num_search_threads: Searches at once.
            refresh_wait_seconds: How long an upsert's answer waits for the indexes to hold it.
        """
        self._threads = ThreadPoolExecutor(num_search_threads, thread_name_prefix="search")
        self.encoding, self._reranking = encoding, reranking or Reranking(None, BatchPolicy(1, 1))
        self.library = Library(catalog, encoding, self._threads, metrics)
        self.maintenance = Maintenance(self.library, encoding, metrics)
        self._metrics, self._refresh_wait_seconds = metrics, refresh_wait_seconds
        self._known: tuple[tuple[object, ...], str] = ((), "")

    async def start(self) -> None:
        """Loads the models and opens the collections, at the same time."""
        models = asyncio.gather(self.encoding.start(), self._reranking.start())
        try:
            await self.library.start()
        finally:
            await models

    async def close(self) -> None:
        """Closes everything; nothing acknowledged is lost when it is not called."""
        await self.library.close()
        await self.encoding.stop()
        await self._reranking.stop()
        self._threads.shutdown()

    async def check(self) -> None:
        """Runs each model once; raises when one does not work."""
        await self.encoding.check()
        await self._reranking.check()

    async def retrieve(self, queries: Sequence[QueryInput], options: RetrievalOptions) -> Retrieved:
        """Finds the passages for each query.

        Raises:
            RagError: When the request as a whole is wrong, or not one of its queries could be answered.
        """
        check_count(len(queries), LIMITS.max_queries, "queries", minimum=1)
        async with self._serving(options.collection, options.index_generation) as (served, encoder):
            plan = options.plan(served.settings, default_top_k=encoder.info.num_passages)
            await served.generation.wait_for(options.min_sequence, current_deadline())
            first_look = self._reranking.first_look(plan)
            prepared, encoded = await self._prepare(queries, options, served, encoder)
            ready = [query for query in prepared if isinstance(query, SearchQuery)]
            if not ready:
                raise next(error for error in prepared if isinstance(error, RagError))
            applied = served.generation.applied
            found = await served.generation.search(self._threads, ready, first_look)
        found = await self._reranking.rerank(ready, found, plan)
        hits = iter(found.hits)
        results = tuple(query if isinstance(query, RagError) else next(hits) for query in prepared)
        seconds = {
            "queue": encoded.queue_seconds,
            "encode": encoded.encode_seconds,
            "search": found.search_seconds,
            "fetch": found.fetch_seconds,
        }
        if plan.num_reread is not None:
            seconds["rerank"] = found.rerank_seconds
        asyncio.get_running_loop().call_soon(self._record, options.collection, results, seconds)  # Nobody waits for it.
        state = self._state(served, applied.sequence, applied.index_digest)
        origin = Origin(options.collection, served.index_generation, applied, encoder.info, state)
        return Retrieved(results, origin, plan.temperature, served.settings.metric, seconds)

    async def state_of(self, name: str, index_generation: int = 0) -> str:
        """A digest of what retrievals search and how it is scored: equal ones, with equal options, find the same."""
        async with self.library.using(name) as collection, collection.serving(index_generation) as served:
            generation = served.generation
            applied = generation.applied
            return self._state(served, max(generation.committed_sequence, applied.sequence), applied.index_digest)

    async def embed(self, inputs: Sequence[EncoderInput], collection: str = "") -> Embedded:
        """Embeds texts with a collection's encoder, or with the server's default one."""
        check_count(len(inputs), LIMITS.max_embed_texts, "texts", minimum=1)
        for item in inputs:
            check_text(item.text, LIMITS.max_text_bytes, "texts", may_be_empty=False)
        if collection:
            async with self._serving(collection, 0) as (_, encoder):
                pass
        else:
            encoder = self.encoding.default
        encoded = await self.encoding.embed(encoder, inputs)
        seconds = {"queue": encoded.queue_seconds, "encode": encoded.encode_seconds}
        return Embedded(encoded.vectors, encoder.info, seconds)

    async def upsert(self, messages: AsyncIterator[UpsertMessage]) -> UpsertResult:
        """Writes a stream of passages; every item with an outcome is durable when it returns."""
        stream: Upsert | None = None
        name = DEFAULT_COLLECTION
        async for message in messages:
            if stream is None:
                name = message.collection or DEFAULT_COLLECTION
                stream = await self._open_upsert(name, replaces_sources=message.replaces_sources)
            elif message.collection not in ("", name):
                change = f"collection changes from {name!r} to {message.collection!r} within a stream"
                raise InvalidRequest(change, field="collection")
            await stream.add(message.items, message.sources)
        if stream is None:
            return UpsertResult()
        result = await stream.finish()
        for outcome in Outcome:
            self._metrics.count_written(name, outcome, result.num(outcome))
        self._metrics.count_written(name, "refused", sum(item.error is not None for item in result.items))
        self._metrics.count_deleted(name, result.num_deleted)
        async with self.library.using(name) as collection:
            with contextlib.suppress(DeadlineExceeded):  # Acknowledged all the same: min_sequence waits for it.
                deadline = min(current_deadline(), Deadline.after(self._refresh_wait_seconds))
                await collection.wait_for(result.sequence, deadline)
        await self.library.measure(name)
        return result

    async def delete(self, name: str, selection: Selection) -> Written:
        """Deletes passages; durable, and found by no later search, when it returns."""
        async with self.library.using(name) as collection:
            condition = selection.condition(collection.settings.filterable_fields)
            written = await collection.delete(condition, selection.sources)
        self._metrics.count_deleted(name, written.num_deleted)
        await self.library.measure(name)
        return written

    async def get_passages(self, name: str, ids: Sequence[str], *, with_vectors: bool) -> dict[str, StoredPassage]:
        """The passages of those ids that exist."""
        check_count(len(ids), LIMITS.max_get_ids, "ids", minimum=1)

        def read(reader: Reader) -> dict[str, StoredPassage]:
            found = reader.passages_by_id(ids)
            vectors: dict[int, Vectors] = {}
            if with_vectors:
                rows, stored = reader.vectors(np.array([row for row, _ in found.values()], np.int64))
                vectors = dict(zip(rows.tolist(), stored, strict=True))
            return {id_: StoredPassage(passage, vectors.get(row)) for id_, (row, passage) in found.items()}

        async with self.library.using(name) as collection:
            return await collection.read(self._threads, read)

    async def list_passages(self, name: str, matching: Filter | None, after: str, size: int) -> Page:
        """A page of passages in id order, those that match the filter."""
        async with self.library.using(name) as collection:
            fields = collection.settings.filterable_fields
            condition = EVERYTHING if matching is None else compile_filter(matching, fields)
            return await collection.read(self._threads, lambda reader: reader.list_passages(condition, after, size))

    async def list_sources(self, name: str, prefix: str, after: str, size: int) -> Page:
        """A page of sources in name order, those whose name starts with `prefix`."""
        async with self.library.using(name) as collection:
            return await collection.read(self._threads, lambda reader: reader.list_sources(prefix, after, size))

    @asynccontextmanager
    async def _serving(self, name: str, index_generation: int) -> AsyncIterator[tuple[Served, Encoder]]:
        """A generation of a collection, with the encoder that made its vectors."""
        async with self.library.using(name) as collection, collection.serving(index_generation) as served:
            yield served, await self._encoder_of(served)

    async def _encoder_of(self, served: Served) -> Encoder:
        settings = served.settings
        return await self.encoding.encoder_of(
            settings.encoder,
            collection=settings.name,
            follows_server=settings.follows_server_encoder and served.is_head,
        )

    async def _prepare(
        self, queries: Sequence[QueryInput], options: RetrievalOptions, served: Served, encoder: Encoder
    ) -> tuple[list[SearchQuery | RagError], Encoded]:
        """Checks the queries, and embeds those that need it together."""
        prepared: list[SearchQuery | RagError] = []
        for query in queries:
            try:
                how, vector = mode_of(query, options, has_lexical=served.has_lexical), query.vector
                if vector is not None:
                    vector = check_vector(vector, served.settings, "query.vector")
                prepared.append(SearchQuery(how, query.text, None if how is Mode.LEXICAL else vector))
            except RagError as error:
                prepared.append(error)
        missing = [
            i
            for i, query in enumerate(prepared)
            if isinstance(query, SearchQuery) and query.mode is not Mode.LEXICAL and query.vector is None
        ]
        encoded = await self.encoding.embed(encoder, [QueryText(queries[i].text) for i in missing])
        for i, vector in zip(missing, normalised(encoded.vectors, served.settings.metric), strict=True):
            prepared[i] = replace(prepared[i], vector=vector)  # type: ignore[type-var]
        return prepared, encoded

    async def _open_upsert(self, name: str, *, replaces_sources: bool) -> Upsert:
        if name == DEFAULT_COLLECTION and not self.library.has(name):
            await self.library.create(CollectionRequest(name))
        async with self.library.using(name) as collection:
            return Upsert(collection, self.encoding, self._threads, replaces_sources=replaces_sources)

    def _record(
        self, collection: str, results: Sequence[tuple[Hit, ...] | RagError], seconds: dict[str, float]
    ) -> None:
        for stage, duration in seconds.items():
            self._metrics.observe_stage(stage, duration)
        for result in results:
            if not isinstance(result, RagError):
                self._metrics.count_query(collection, len(result))

    def _state(self, served: Served, sequence: int, index_digest: str) -> str:
        """SHA-256 (hex) over what decides what a retrieval finds, besides its options."""
        known = (served.index_generation, sequence, index_digest, served.settings, self._reranking.digest)
        if known != self._known[0]:  # Most requests come while nothing changes.
            self._known = (known, hashlib.sha256(repr(known).encode()).hexdigest())
        return self._known[1]
