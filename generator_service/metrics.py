"""What the generator measures of itself. Each metric's comment is the question an operator asks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from generator_service.request import DecodingModel, Generation
from generator_service.row_encoder import EncoderWork
from serving.metrics import LATENCY_BUCKETS, rpc_metrics

_STEP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class GeneratorMetrics:
    """The generator's own metrics; the RPCs' are in `serving.metrics`. Fits `EngineObserver`."""

    queue_seconds: Histogram
    prefill_seconds: Histogram
    step_seconds: Histogram
    scoring_seconds: Histogram
    decode_seconds: Histogram
    first_token_seconds: Histogram
    time_per_token_seconds: Histogram
    batch_requests: Histogram
    batch_rows: Histogram
    waiting: Gauge
    running: Gauge
    decoder_rows: Gauge
    encoder_rows: Counter
    input_tokens: Counter
    padded_tokens: Counter
    output_tokens: Counter
    cache_hits: Counter
    cache_misses: Counter
    cache_evictions: Counter
    cache_bytes: Gauge
    refused: Counter
    dropped: Counter
    answers: Counter

    def on_prefill(self, work: EncoderWork, *, seconds: float, queue_seconds: Sequence[float]) -> None:
        """See `EngineObserver`."""
        self.cache_hits.inc(work.num_hits)
        self.cache_misses.inc(work.num_rows)
        self.cache_evictions.inc(work.num_evictions)
        self.cache_bytes.set(work.cache_bytes)
        for each in queue_seconds:
            self.queue_seconds.observe(each)
        if work.num_rows:
            self.prefill_seconds.observe(seconds)
            self.encoder_rows.inc(work.num_rows)
            self.input_tokens.inc(work.num_tokens)
            self.padded_tokens.inc(work.num_padded_tokens)

    def on_step(self, *, num_requests: int, num_rows: int, seconds: float) -> None:
        """See `EngineObserver`."""
        self.step_seconds.observe(seconds)
        self.batch_requests.observe(num_requests)
        self.batch_rows.observe(num_rows)

    def on_slice(self, *, seconds: float) -> None:
        """See `EngineObserver`."""
        self.scoring_seconds.observe(seconds)

    def on_refused(self, *, reason: str) -> None:
        """See `EngineObserver`."""
        self.refused.labels(reason=reason).inc()

    def on_dropped(self, *, reason: str, count: int) -> None:
        """See `EngineObserver`."""
        self.dropped.labels(reason=reason).inc(count)

    def on_state(self, *, num_waiting: int, num_running: int, num_rows: int) -> None:
        """See `EngineObserver`."""
        self.waiting.set(num_waiting)
        self.running.set(num_running)
        self.decoder_rows.set(num_rows)

    def observe_answer(self, generation: Generation) -> None:
        """Records an answer that was given."""
        timings = generation.timings
        self.answers.labels(model=generation.model.value).inc()
        self.output_tokens.inc(generation.best.num_new_tokens)
        self.decode_seconds.observe(timings.engine.decode_seconds)
        self.time_per_token_seconds.observe(timings.engine.decode_seconds / max(1, generation.best.num_new_tokens))
        if timings.first_token_seconds is not None:
            self.first_token_seconds.observe(timings.first_token_seconds)


@functools.cache
def generator_metrics() -> GeneratorMetrics:
    """The process's metrics; made once."""
    metrics = GeneratorMetrics(
        # How long do requests wait for the model?
        queue_seconds=Histogram("rag_generator_queue_seconds", "Accepted until encoded.", buckets=LATENCY_BUCKETS),
        # How long does a batch of new requests hold up the running ones?
        prefill_seconds=Histogram("rag_generator_prefill_seconds", "Encoding a batch.", buckets=LATENCY_BUCKETS),
        # How long does one token take, for all requests together?
        step_seconds=Histogram("rag_generator_step_seconds", "One decode step.", buckets=_STEP_BUCKETS),
        # How long does scoring of given answers hold up the running ones?
        scoring_seconds=Histogram("rag_generator_scoring_seconds", "One slice of scoring.", buckets=LATENCY_BUCKETS),
        # How long does an answer take once its passages are read?
        decode_seconds=Histogram("rag_generator_decode_seconds", "Encoded until answered.", buckets=LATENCY_BUCKETS),
        # How long until something can be read?
        first_token_seconds=Histogram(
            "rag_generator_first_token_seconds", "Accepted until the first token.", buckets=LATENCY_BUCKETS
        ),
        # How fast does an answer grow?
        time_per_token_seconds=Histogram(
            "rag_generator_time_per_token_seconds", "Decoding time per token of an answer.", buckets=_STEP_BUCKETS
        ),
        # Do concurrent requests share the steps?
        batch_requests=Histogram("rag_generator_step_requests", "Requests in a decode step.", buckets=_SIZE_BUCKETS),
        # How large are the steps?
        batch_rows=Histogram("rag_generator_step_rows", "Decoder rows in a decode step.", buckets=_SIZE_BUCKETS),
        # How much waits, how much runs, and what memory does it hold?
        waiting=Gauge("rag_generator_waiting_requests", "Requests not yet encoded."),
        running=Gauge("rag_generator_running_requests", "Requests being decoded."),
        decoder_rows=Gauge("rag_generator_running_rows", "Decoder rows held."),
        # How much is read and written? Rates are the throughput.
        encoder_rows=Counter("rag_generator_encoder_rows", "Rows (question and passage) encoded."),
        input_tokens=Counter("rag_generator_input_tokens", "Tokens encoded, without padding."),
        # How much of the encoder's work is padding? Divide by the input tokens.
        padded_tokens=Counter("rag_generator_padded_tokens", "Tokens encoded for padding only."),
        output_tokens=Counter("rag_generator_output_tokens", "Tokens of answers."),
        # Are question and passage read again and again, and is there room to remember them? Hits over hits and misses.
        cache_hits=Counter("rag_generator_encoder_cache_hits", "Rows that were not encoded, their states being there."),
        cache_misses=Counter("rag_generator_encoder_cache_misses", "Rows that had to be encoded."),
        cache_evictions=Counter("rag_generator_encoder_cache_evictions", "Rows forgotten for lack of room."),
        cache_bytes=Gauge("rag_generator_encoder_cache_bytes", "Memory of the states kept."),
        # What was refused on arrival? One metric with the refusals at admission.
        refused=rpc_metrics("generator").refused,
        # How much work was given up: callers gone, deadlines passed, failures?
        dropped=Counter("rag_generator_dropped_requests", "Requests that left without an answer.", ["reason"]),
        # What is asked for?
        answers=Counter("rag_generator_answers", "Answers given.", ["model"]),
    )
    _begin_at_zero(metrics)
    return metrics


def _begin_at_zero(metrics: GeneratorMetrics) -> None:
    """Makes every label known, so that a rate sees the first event."""
    for reason in ("cancelled", "deadline", "failed"):
        metrics.dropped.labels(reason=reason)
    for reason in ("DEADLINE_UNREACHABLE", "QUEUE_TOO_LONG"):
        metrics.refused.labels(reason=reason)
    for model in DecodingModel:
        metrics.answers.labels(model=model.value)
