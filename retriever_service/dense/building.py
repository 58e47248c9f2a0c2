"""Segments made from the store: range by range, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from retriever_service.collection import Rows, Vectors
from retriever_service.dense.cagra import CAGRA
from retriever_service.dense.factory import build, build_from_all, factory_for, is_scan, num_scans
from retriever_service.dense.library import load_faiss
from retriever_service.dense.merging import Rebuild
from retriever_service.dense.segment import Segment
from retriever_service.dense.segment_files import SegmentFiles
from retriever_service.dense_index import VectorSource

_REPORT_SECONDS = 1.0
_MIN_SCANNED = 250_000  # Vectors: about 1.3 ms of a core at 384 dimensions, for which waking a thread pays.


class Stopped(Exception):
    """The index was closed while it was being built."""


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """How segments are built and searched.

    Attributes:
        choose_factory: FAISS factory string by vectors in the collection and in the segment.
        target_recall: Of quantised indexes, recall@10; what they are searched with is chosen for it.
        max_segment_bytes: Of a segment's vectors at two bytes a number: bounds the memory of a merge.
        place: Brings an index to where it is searched; default: where it is.
        build_graph: Makes a CAGRA index of vectors (N, D), where `choose_factory` asks for one.
        num_threads: Of `threads`.
        threads: Search parts of a batch at the same time.
        on_progress: Told how much of the loading is done, 0 to 1.
        on_search: Told how many queries each search has.
    """

    choose_factory: Callable[[int, int], str] = factory_for
    target_recall: float = 0.98
    max_segment_bytes: int = 1 << 30
    place: Callable[[Any], Any] | None = None
    build_graph: Callable[[Vectors], Any] | None = None
    num_threads: int = 1
    threads: Executor | None = None
    on_progress: Callable[[float], None] = lambda _: None
    on_search: Callable[[int], None] = lambda _: None


class Builder:
    """Builds the segments of one index. One thread at a time."""

    def __init__(
        self,
        files: SegmentFiles,
        dim: int,
        options: SegmentOptions,
        *,
        is_stopped: Callable[[], bool],
        report: Callable[[float], None],
    ) -> None:
        """Prepares.

        Args:
            files: Where segments go.
            dim: Of the vectors.
            options: How to build.
            is_stopped: Asked between batches.
            report: Told about once a second how far it is, 0 to 1.
        """
        self._files, self._dim, self._options = files, dim, options
        self._is_stopped, self._report = is_stopped, report
        self.capacity = max(1, options.max_segment_bytes // (2 * dim))  # Vectors that a segment may hold.

    def build(self, source: VectorSource, plan: Sequence[Rebuild], num_vectors: int) -> list[Segment]:
        """Builds the planned ranges, each opened from its durable files; ranges without a vector give nothing.

        Raises:
            Stopped: When the index was closed meanwhile.
        """
        pieces = [part for whole in plan for part in self._split(source, whole, self._size(num_vectors, whole.num))]
        factories = [self._options.choose_factory(num_vectors, piece.num) for piece in pieces]
        num_reads = sum(piece.num * num_scans(factory) for piece, factory in zip(pieces, factories, strict=True))
        progress = Progress(num_reads, self._report)
        segments = []
        for piece, factory in zip(pieces, factories, strict=True):
            scan = partial(self._scan, source, piece, progress)
            if factory == CAGRA and self._options.build_graph is not None:
                built = build_from_all(scan, self._options.build_graph, factory, self._options.place)
            else:
                built = build(scan, self._dim, factory, piece.num, self._options.target_recall)
            if built is not None:
                up_to = int(built.rows[-1]) if piece.up_to is None else piece.up_to
                segment = self._files.write(built, piece.after, up_to)
                segment.searcher.search(load_faiss().rand((1, self._dim)), 1)  # Warm before it is searched.
                segments.append(segment)
        return segments

    def _size(self, num_vectors: int, num: int) -> int:
        """How many of `num` vectors a segment takes: what scans every code is scanned by all threads at once."""
        if is_scan(self._options.choose_factory(num_vectors, num)):
            return min(self.capacity, max(_MIN_SCANNED, -(-num_vectors // self._options.num_threads)))
        return self.capacity

    def _split(self, source: VectorSource, whole: Rebuild, capacity: int) -> Iterator[Rebuild]:
        """The range in parts of at most `capacity`; there may be more in it than expected."""
        size = -(-whole.num // max(1, -(-whole.num // capacity)))  # Equal parts.
        after, left = whole.after, whole.num
        while (beyond := source.row_at(after, capacity)) and (whole.up_to is None or beyond <= whole.up_to):
            up_to = source.row_at(after, size - 1)
            yield Rebuild(after, up_to, size)
            assert up_to is not None
            after, left = up_to, left - size
        yield Rebuild(after, whole.up_to, max(left, 1))

    def _scan(self, source: VectorSource, piece: Rebuild, progress: Progress) -> Iterator[tuple[Rows, Vectors]]:
        for rows, vectors in source.scan_vectors(piece.after, piece.up_to):
            if self._is_stopped():
                raise Stopped
            yield rows, vectors
            progress.add(len(rows))


class Progress:
    """How much has been read, told about once a second."""

    def __init__(self, num_total: int, report: Callable[[float], None]) -> None:
        self._num_total, self._report = max(1, num_total), report
        self._num_done, self._reported_at = 0, time.monotonic()

    def add(self, num: int) -> None:
        """Counts vectors."""
        self._num_done += num
        if time.monotonic() - self._reported_at > _REPORT_SECONDS:
            self._reported_at = time.monotonic()
            self._report(min(1.0, self._num_done / self._num_total))
