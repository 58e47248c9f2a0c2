"""What the gateway measures. The only module of the gateway that knows Prometheus."""

import functools

from prometheus_client import Counter, Gauge, Histogram

from gateway.answers import Answer
from serving.metrics import LATENCY_BUCKETS

_RATIO_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class GatewayMetrics:
    """The metrics of a gateway; observes its pipeline. Get it from `gateway_metrics`."""

    def __init__(self) -> None:
        """Registers the metrics."""
        # Where does the time of an answer go? Quantiles by stage.
        self._stage_seconds = Histogram(
            "rag_gateway_answer_stage_seconds", "Duration of an answer's stages.", ["stage"], buckets=LATENCY_BUCKETS
        )
        # How do answers end, by which decoding model? "abstained" and "no_passages" over all is the unanswered share.
        self._answers = Counter("rag_gateway_answers", "Finished answers.", ["finish_reason", "model"])
        # On how much evidence do answers stand?
        self._passages = Histogram(
            "rag_gateway_answer_passages", "Passages an answer was made from.", buckets=(0, 1, 2, 3, 5, 10, 20, 50, 100)
        )
        # How sure are the answers? A shift means other questions, another index or another model.
        self._confidence = Histogram(
            "rag_gateway_answer_confidence_ratio", "Confidence before any threshold.", buckets=_RATIO_BUCKETS
        )
        # How long does a reader of a stream look at nothing?
        self._first_token_seconds = Histogram(
            "rag_gateway_time_to_first_token_seconds", "From question to first delta.", buckets=LATENCY_BUCKETS
        )
        # Which backend fails, and how?
        self._downstream_errors = Counter(
            "rag_gateway_downstream_errors", "Failed calls of backends.", ["service", "reason"]
        )
        # Does ranking candidates change answers, or only cost time? (Its time is the stage "rank".)
        self._rankings = Counter(
            "rag_gateway_candidate_rankings", "Rankings of candidate answers, by whether another one won.", ["changed"]
        )
        # Is the answer cache worth its room? "uncacheable" is random sampling.
        self._cache_lookups = Counter("rag_gateway_answer_cache_lookups", "Questions looked up.", ["outcome"])
        for outcome in ("hit", "miss", "uncacheable"):  # Counted from 0, so that a first one is a rise.
            self._cache_lookups.labels(outcome=outcome)
        # Why do cached answers go? "changed" is a write or another model, "evicted" is a cache that is too small.
        self._cache_removals = Counter("rag_gateway_answer_cache_removals", "Cached answers dropped.", ["reason"])
        for reason in ("changed", "expired", "evicted", "replaced"):
            self._cache_removals.labels(reason=reason)
        # How full is the answer cache?
        self._cache_bytes = Gauge("rag_gateway_answer_cache_bytes", "Size of the cached answers.")
        # What do people think of the answers?
        self._feedback = Counter("rag_gateway_feedback", "Feedback received.", ["rating"])

    def answered(self, answer: Answer) -> None:
        """Records a finished answer."""
        generation = answer.made.generation
        model = generation.model if generation is not None else "none"
        self._answers.labels(finish_reason=answer.finish_reason, model=model).inc()
        self._passages.observe(len(answer.made.retrieval.passages))
        if generation is not None:
            self._confidence.observe(generation.confidence)
            if generation.chosen is not None:
                self._rankings.labels(changed="yes" if generation.chosen else "no").inc()
        for stage, seconds in answer.timings.items():
            self._stage_seconds.labels(stage=stage).observe(seconds)

    def first_token(self, seconds: float) -> None:
        """Records the time to a stream's first delta."""
        self._first_token_seconds.observe(seconds)

    def cache_lookup(self, outcome: str) -> None:
        """Counts a look-up in the answer cache: "hit", "miss" or "uncacheable"."""
        self._cache_lookups.labels(outcome=outcome).inc()

    def cache_removal(self, reason: str) -> None:
        """Counts an answer that the cache dropped: "changed", "expired", "evicted" or "replaced"."""
        self._cache_removals.labels(reason=reason).inc()

    def cache_bytes(self, num_bytes: int) -> None:
        """Records the size of the answer cache."""
        self._cache_bytes.set(num_bytes)

    def downstream_error(self, service: str, reason: str) -> None:
        """Counts a failed call of the "retriever" or the "generator"."""
        self._downstream_errors.labels(service=service, reason=reason).inc()

    def feedback(self, rating: str) -> None:
        """Counts feedback that was stored; rating is "good", "bad" or ""."""
        self._feedback.labels(rating=rating or "none").inc()


@functools.cache
def gateway_metrics() -> GatewayMetrics:
    """The gateway's metrics, made once per process."""
    return GatewayMetrics()
