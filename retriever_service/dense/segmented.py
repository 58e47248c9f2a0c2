"""A dense index that changes while it is searched: immutable FAISS segments, and a small exact delta in memory.

Searches work on one state, which is replaced as a whole: they wait neither for a write nor for a merge. Deletions are
dead rows, fetched in addition and dropped. A merge reads its vectors from the store as of one change, batch by batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from retriever_service.collection import CollectionSettings, Rows, Vectors
from retriever_service.dense.building import Builder, Progress, SegmentOptions, Stopped
from retriever_service.dense.exact import ExactIndex
from retriever_service.dense.factory import EXACT
from retriever_service.dense.merging import Extent, Rebuild, max_delta, plan_merge
from retriever_service.dense.segment import Segment, nearest_among
from retriever_service.dense.segment_files import SegmentFiles
from retriever_service.dense_index import Hits, OpenSource, VectorSource, merge_hits
from serving.logs import get_logger

_CHANGES_PER_STEP = 4_096
_RETRY_SECONDS = 30.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _State:
    """What searches see."""

    segments: tuple[Segment, ...]  # By ascending rows.
    delta: ExactIndex  # The rows above all segments.

    @property
    def num_vectors(self) -> int:
        return self.delta.num_vectors + sum(segment.num_live for segment in self.segments)


class SegmentedIndex:
    """See the module. One thread changes it, any thread searches it, one of its own merges."""

    def __init__(
        self, directory: Path, settings: CollectionSettings, open_source: OpenSource, options: SegmentOptions
    ) -> None:
        """Makes an empty index; `load` fills it.

        Args:
            directory: Of its files; made when there are any.
            settings: Of the collection.
            open_source: Opens the store for a long read.
            options: How to build and search.
        """
        self._dim, self._name, self._options = settings.encoder.dim, settings.name, options
        self._files = SegmentFiles(directory, self._dim, options.place)
        self._open_source, self._encoder_digest = open_source, settings.encoder.digest
        self._origin = ""
        self._builder = Builder(
            self._files, self._dim, options, is_stopped=lambda: self._is_closing, report=self._report
        )
        self._state, self._floor = _State((), ExactIndex(self._dim)), 0  # The delta takes rows above the floor.
        self._lock = threading.Lock()  # Held by whoever replaces the state.
        self._merger = ThreadPoolExecutor(1, thread_name_prefix=f"merge-{settings.name}")
        self._merging: Future[None] | None = None
        self._removed_meanwhile: list[int] | None = None  # While a merge is under way.
        self._sequence = 0  # Of the manifest.
        self._is_closing = False
        self._retry_at = 0.0  # A merge that failed is not tried again before.

    @property
    def kind(self) -> str:
        """The largest segment's factory string, or "exact"."""
        segments = self._state.segments
        factory = max(segments, key=lambda segment: segment.num_live).factory if segments else EXACT
        return "exact" if factory == EXACT else factory

    @property
    def measured_recall(self) -> float:
        """Recall@10 against exact search, as measured when the segments were built."""
        state = self._state
        lost = sum((1 - segment.recall) * segment.num_live for segment in state.segments)
        return 1.0 - lost / max(1, state.num_vectors)

    @property
    def num_vectors(self) -> int:
        """Live vectors."""
        return self._state.num_vectors

    @property
    def num_bytes(self) -> int:
        """The delta's memory, and the size of the mapped files."""
        return self._state.delta.num_bytes + self._files.num_bytes

    def close(self) -> None:
        """Waits for the merge under way to give up."""
        with self._lock:
            self._is_closing = True
        self._merger.shutdown()

    def search(self, queries: Vectors, count: int) -> Hits:
        """The `count` best live rows for each of (B, D) queries.

        All threads share it: by segments, by ranges of exact ones' rows, and, where those are fewer than threads, by
        queries where an index takes as long for each of many as for one. (A matrix product and a GPU want all of them
        at once.)
        """
        state, num_threads = self._state, self._options.num_threads
        self._options.on_search(len(queries))
        slices = [part for segment in state.segments for part in segment.slices(num_threads)]
        searches: list[Callable[[Vectors, int], Hits]] = [part.search for part in slices]
        if state.delta.num_vectors or not searches:
            searches.insert(0, state.delta.search)
        is_divisible = any(one.factory != EXACT and one.searcher is one.index for one in slices)
        num_parts = min(len(queries), max(1, num_threads // len(searches))) if is_divisible else 1
        parts = np.array_split(queries, num_parts)
        found = self._run([partial(search, part, count) for part in parts for search in searches])
        merged = [merge_hits(found[i : i + len(searches)], count) for i in range(0, len(found), len(searches))]
        if len(merged) == 1:
            return merged[0]
        return Hits(np.concatenate([one.rows for one in merged]), np.concatenate([one.scores for one in merged]))

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The same, exactly, among `rows` alone; from the store where the index does not keep vectors as they are."""
        state, rows = self._state, np.unique(rows)
        found = [state.delta.search_among(queries, rows, count)]
        missing = []
        for segment in state.segments:
            here = rows[(rows > segment.after) & (rows <= segment.up_to)]
            if segment.stored is not None:
                found.append(segment.search_among(queries, here, count))
            elif len(here):
                missing.append(here)
        if missing:
            with self._open_source() as source:
                found.append(nearest_among(*source.vectors(np.concatenate(missing)), queries, count))
        return merge_hits(found, count)

    def load(self, source: VectorSource) -> None:
        """Opens the files, builds what is damaged or missing, and takes from the store what lies beyond them."""
        started = time.monotonic()
        self._origin = f"{source.meta('store_id')} {self._encoder_digest}"
        last, num_vectors = source.last_sequence(), source.num_passages()
        segments, plan, removed = self._open_files(source, last, num_vectors)
        self._replace(segments + self._builder.build(source, plan, num_vectors), removed)
        if plan:
            self._record(last)
        progress = Progress(num_vectors - self._state.num_vectors, self._report)
        for rows, vectors in source.scan_vectors(self._floor):
            self.add(rows, vectors)
            progress.add(len(rows))
        self._merge_if_due()
        self._options.on_progress(1.0)
        seconds = round(time.monotonic() - started, 3)
        log.info("dense index ready", collection=self._name, kind=self.kind, vectors=self.num_vectors, seconds=seconds)

    def _open_files(
        self, source: VectorSource, last: int, num_vectors: int
    ) -> tuple[list[Segment], list[Rebuild], list[int]]:
        """The segments there are, those to be built, and the rows removed since the former were recorded."""
        manifest = self._files.read_manifest(self._origin)
        if manifest is None or manifest.sequence > last:
            self._files.delete_others()
            return [], plan_merge([], num_vectors, self._builder.capacity), []
        opened = [(entry, self._files.open(entry)) for entry in manifest.entries]
        self._files.delete_others()
        self._sequence = manifest.sequence
        plan = [Rebuild(one.after, one.up_to, one.num_stored) for one, segment in opened if segment is None]
        if plan:
            log.warning("dense segments are damaged: built anew", collection=self._name, segments=len(plan))
        return [segment for _, segment in opened if segment], plan, self._removed_since(source, last)

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Adds rows above every row added before; waits where a merge cannot keep up, so that memory is bounded."""
        merging = self._merging
        if merging is not None and self._state.delta.num_vectors > max_delta(self._state.num_vectors):
            merging.exception()
        with self._lock:
            self._state.delta.add(rows, vectors)
        self._merge_if_due()

    def remove(self, rows: Iterable[int]) -> None:
        """Removes rows; absent ones are no error."""
        gone = list(rows)
        with self._lock:
            if self._removed_meanwhile is not None:
                self._removed_meanwhile += gone
            state = self._state
            state.delta.remove(gone)
            segments = tuple(segment.without(gone) for segment in state.segments)
            self._state = _State(segments, state.delta)
        self._merge_if_due()

    def wait_for_merge(self) -> None:
        """Returns when no merge is under way."""
        while (merging := self._merging) is not None and not merging.done():
            merging.exception()

    def _merge_if_due(self) -> None:
        is_idle = self._merging is None or self._merging.done()
        if is_idle and time.monotonic() >= self._retry_at and self._plan(self._state):
            with self._lock:
                if not self._is_closing:
                    self._merging = self._merger.submit(self._merge)

    def _plan(self, state: _State) -> list[Rebuild]:
        num_vectors = state.num_vectors
        extents = [
            Extent(
                segment.after,
                segment.up_to,
                len(segment.rows),
                segment.num_live,
                is_outdated=segment.factory == EXACT != self._options.choose_factory(num_vectors, segment.num_live),
            )
            for segment in state.segments
        ]
        return plan_merge(extents, state.delta.num_vectors, self._builder.capacity)

    def _merge(self) -> None:
        """Builds what is due from the store, and replaces the state; what changes meanwhile is applied to both."""
        try:
            with self._lock:
                self._removed_meanwhile = []
                state = self._state
            with self._open_source() as source:
                sequence, plan = source.last_sequence(), self._plan(state)
                built = self._builder.build(source, plan, state.num_vectors)
                removed = self._removed_since(source, sequence) if state.segments else []
            with self._lock:
                kept = [one for one in self._state.segments if not _is_covered(one, plan)]
                self._replace(kept + built, [*removed, *self._removed_meanwhile])
            self._record(sequence)
            log.info("dense segments merged", collection=self._name, built=len(built), kept=len(kept))
        except Stopped:
            pass
        except Exception:  # E.g. a full disk: the delta goes on growing, and the next change tries again.
            log.exception("dense segments cannot be merged", collection=self._name)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
        finally:
            with self._lock:
                self._removed_meanwhile = None
            self._options.on_progress(1.0)

    def _replace(self, segments: Sequence[Segment], removed: Sequence[int]) -> None:
        """Makes these segments, without the removed rows, and what of the delta lies above them, the state."""
        ordered = tuple(sorted((one.without(removed) for one in segments), key=lambda one: one.after))
        delta, floor = self._state.delta, ordered[-1].up_to if ordered else 0
        if floor > self._floor:
            self._floor, newer = floor, ExactIndex(self._dim, after=floor)
            newer.add(*delta.live_after(floor))
            delta = newer
        self._state = _State(ordered, delta)

    def _record(self, sequence: int) -> None:
        """Records durably that the segments hold every change up to this one."""
        with self._lock:
            segments = self._state.segments
        self._files.write_manifest(self._origin, sequence, segments)
        self._sequence = sequence

    def _removed_since(self, source: VectorSource, last: int) -> list[int]:
        """Rows removed by what the manifest does not include."""
        removed, after = [], self._sequence
        while after < last and (changes := source.changes(after, _CHANGES_PER_STEP)):
            removed += [change.row for change in changes if change.operation == "removed"]
            after = changes[-1].sequence
        return removed

    def _report(self, ratio: float) -> None:
        self._options.on_progress(ratio)
        log.info("dense index is being built", collection=self._name, progress=round(ratio, 3))

    def _run(self, tasks: Sequence[Callable[[], Hits]]) -> list[Hits]:
        """Runs all of them, the last one here."""
        threads = self._options.threads
        if threads is None:
            return [task() for task in tasks]
        others = [threads.submit(task) for task in tasks[:-1]]
        last = tasks[-1]()
        return [*(other.result() for other in others), last]


def _is_covered(segment: Segment, plan: Sequence[Rebuild]) -> bool:
    return any(piece.after <= segment.after and (piece.up_to is None or segment.up_to <= piece.up_to) for piece in plan)
