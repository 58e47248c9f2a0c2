"""What the retriever measures of itself. Each metric's comment is the question an operator asks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from serving.batching import Batch
from serving.metrics import LATENCY_BUCKETS

_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class RetrieverMetrics:
    """The retriever's own metrics; the RPCs' are in `serving.metrics`."""

    stage_seconds: Histogram
    batch_items: Histogram
    batch_tokens: Counter
    skipped: Counter
    queries: Counter
    empty: Counter
    written: Counter
    deleted: Counter
    passages: Gauge
    sources: Gauge
    index_bytes: Gauge
    sequence_lag: Gauge
    recall: Gauge
    index_progress: Gauge
    dense_queries: Histogram
    replication_lag: Gauge
    publication: Gauge
    publication_age: Gauge
    replication_failures: Counter

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Records how long a stage of a request took: "queue", "encode", "search", "fetch", "rerank" or "commit"."""
        self.stage_seconds.labels(stage=stage).observe(seconds)

    def observe_batch(self, batch: Batch) -> None:
        """Records a batch of the encoder; fits `Batcher(on_batch=...)`."""
        self.batch_items.observe(batch.num_items)
        self.batch_tokens.inc(batch.cost)
        self.skipped.inc(batch.num_skipped)

    def count_query(self, collection: str, num_passages: int) -> None:
        """Counts an answered query."""
        self.queries.labels(collection=collection).inc()
        if not num_passages:
            self.empty.labels(collection=collection).inc()

    def count_written(self, collection: str, outcome: str, count: int) -> None:
        """Counts passages of an upsert by outcome: "inserted", "updated", "unchanged", "duplicate" or "refused"."""
        self.written.labels(collection=collection, outcome=outcome).inc(count)

    def count_deleted(self, collection: str, count: int) -> None:
        """Counts deleted passages."""
        self.deleted.labels(collection=collection).inc(count)

    def set_collection(self, collection: str, num_passages: int, num_sources: int) -> None:
        """Records what a collection holds."""
        self.passages.labels(collection=collection).set(num_passages)
        self.sources.labels(collection=collection).set(num_sources)

    def set_index(self, collection: str, dense_bytes: int, lexical_bytes: int, lag: int) -> None:
        """Records the size of the indexes and how many changes they are behind."""
        self.index_bytes.labels(collection=collection, index="dense").set(dense_bytes)
        self.index_bytes.labels(collection=collection, index="lexical").set(lexical_bytes)
        self.sequence_lag.labels(collection=collection).set(lag)

    def set_recall(self, collection: str, recall: float) -> None:
        """Records the dense index's measured recall@10."""
        self.recall.labels(collection=collection).set(recall)

    def set_index_progress(self, collection: str, ratio: float) -> None:
        """Records how much of the dense index's loading is done."""
        self.index_progress.labels(collection=collection).set(ratio)

    def observe_dense_search(self, num_queries: int) -> None:
        """Records one search of a dense index."""
        self.dense_queries.observe(num_queries)

    def set_replication_lag(self, lag_seconds: Callable[[], float]) -> None:
        """Says where a reader's lag is to be asked for."""
        self.replication_lag.set_function(lag_seconds)

    def set_publication(self, number: int, published_at: float) -> None:
        """Records the publication that a writer made last, or that a reader serves; its moment is Unix time."""
        self.publication.set(number)
        self.publication_age.set_function(lambda: max(0.0, time.time() - published_at))

    def count_replication_failure(self, action: str) -> None:
        """Counts what did not succeed and is tried again: "publish" or "follow"."""
        self.replication_failures.labels(action=action).inc()

    def forget_collection(self, collection: str) -> None:
        """Drops the gauges of a dropped collection."""
        index = (self.index_bytes, self.sequence_lag, self.recall, self.index_progress)
        for gauge in (self.passages, self.sources, *index):
            gauge.remove_by_labels({"collection": collection})


@functools.cache
def retriever_metrics() -> RetrieverMetrics:
    """The process's metrics; made once."""
    each = ["collection"]
    metrics = RetrieverMetrics(
        # Where does a request's time go?
        stage_seconds=Histogram(
            "rag_retriever_stage_duration_seconds", "Duration by stage.", ["stage"], buckets=LATENCY_BUCKETS
        ),
        # Do concurrent requests share the encoder's batches?
        batch_items=Histogram("rag_retriever_encoder_batch_items", "Texts per batch.", buckets=_SIZE_BUCKETS),
        # How much text goes through the encoder? Rate is its throughput.
        batch_tokens=Counter("rag_retriever_encoder_tokens", "Estimated tokens encoded."),
        # How much work was given up before it was done, because the caller left or its deadline passed?
        skipped=Counter("rag_retriever_encoder_skipped", "Entries skipped in the encoder's queue."),
        # How many queries does each collection answer?
        queries=Counter("rag_retriever_queries", "Answered queries.", each),
        # How many of them find nothing? A sudden rise is a wrong filter or an empty collection.
        empty=Counter("rag_retriever_empty_queries", "Answered queries without a passage.", each),
        # Does ingestion arrive, and how much of it is new?
        written=Counter("rag_retriever_upserted_passages", "Passages of upserts.", [*each, "outcome"]),
        # How much is taken away?
        deleted=Counter("rag_retriever_deleted_passages", "Deleted passages.", each),
        # How large is the knowledge base?
        passages=Gauge("rag_retriever_passages", "Stored passages.", each),
        sources=Gauge("rag_retriever_sources", "Stored sources.", each),
        # What do the indexes cost in memory (dense) and on disk (lexical)?
        index_bytes=Gauge("rag_retriever_index_size_bytes", "Size of an index.", [*each, "index"]),
        # Does the dense index find what exact search would find?
        recall=Gauge("rag_retriever_index_recall_ratio", "Measured recall@10 of the dense index.", each),
        # How far is a start or a rebuild? Below 1 the collection is not served yet, or a merge is under way.
        index_progress=Gauge("rag_retriever_index_progress_ratio", "Share of the index that is loaded.", each),
        # Do concurrent callers share the dense index's batches?
        dense_queries=Histogram(
            "rag_retriever_dense_search_queries", "Queries per search of a dense index.", buckets=_SIZE_BUCKETS
        ),
        # Are the indexes behind the store? It should return to 0 within a second of a write.
        sequence_lag=Gauge("rag_retriever_index_lag_changes", "Changes that the indexes do not hold yet.", each),
        # How stale can a read replica's answers be? 0 on a writer; above its interval it cannot follow.
        replication_lag=Gauge(
            "rag_retriever_replication_lag_seconds", "Since a reader's state was certainly the newest publication."
        ),
        # Do readers serve what the writer published? The same number on all of them is yes.
        publication=Gauge("rag_retriever_publication_number", "Last publication made (writer) or served (reader)."),
        # Does a reader serve an older one than the writer made? A writer's grows while nothing changes.
        publication_age=Gauge("rag_retriever_publication_age_seconds", "Since that publication was made; 0 for none."),
        # Is the store that they share reachable and whole?
        replication_failures=Counter(
            "rag_retriever_replication_failures", "Failed publications and looks at them.", ["action"]
        ),
    )
    for action in ("publish", "follow"):  # Counted from 0, so that a first one is a rise.
        metrics.replication_failures.labels(action=action)
    return metrics
