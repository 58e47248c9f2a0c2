"""Concurrent callers' searches run together: FAISS's matrix product and a GPU need batches to be fast.

So do reads of the store and changes of thread, of which a batch then takes one each: `SharedRuns` searches to the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from retriever_service.collection import Rows, Vectors
from retriever_service.dense_index import DenseIndex, Hits, VectorSearch
from retriever_service.search import Found, Plan, SearchQuery
from serving.batching import Batcher, BatchPolicy

_MAX_QUERIES = 64  # More do not get cheaper, and later ones would wait.


@dataclass(frozen=True, slots=True)
class _Asked:
    queries: Vectors  # (B, D)
    count: int


class SharedSearch:
    """Searches one index for the callers of one event loop, one batch at a time, in a thread of its own."""

    def __init__(self, index: DenseIndex, name: str) -> None:
        """Prepares; `start` sets it going.

        Args:
            index: Searched.
            name: Of the thread.
        """
        self._index, self._num_callers = index, 0
        policy = BatchPolicy(_MAX_QUERIES, _MAX_QUERIES)
        self._batcher: Batcher[_Asked, Hits] = Batcher(self._run, policy, name=f"dense-{name}")

    async def start(self) -> None:
        """Starts the thread."""
        await self._batcher.start()

    async def stop(self) -> None:
        """Ends it."""
        await self._batcher.stop()

    @asynccontextmanager
    async def searched(self, queries: Vectors, count: int) -> AsyncIterator[VectorSearch]:
        """The index with the answer for (B, D) queries; whatever is asked meanwhile goes into the next batch.

        Who has nobody to share with gets the index itself, and searches it in a thread of its own: one hop less.
        """
        is_alone = not self.is_used
        with self.in_use():
            if is_alone:
                yield self._index
            else:
                yield Searched(self._index, await self._batcher.submit(_Asked(queries, count), cost=len(queries)))

    @property
    def is_used(self) -> bool:
        """Whether a caller is there."""
        return self._num_callers > 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Counts a caller meanwhile."""
        self._num_callers += 1
        try:
            yield
        finally:
            self._num_callers -= 1

    def _run(self, asked: Sequence[_Asked]) -> list[Hits]:
        queries = asked[0].queries if len(asked) == 1 else np.concatenate([one.queries for one in asked])
        found = self._index.search(queries, max(one.count for one in asked))
        starts = np.cumsum([0, *(len(one.queries) for one in asked[:-1])])
        parts = [
            (slice(start, start + len(one.queries)), slice(one.count)) for one, start in zip(asked, starts, strict=True)
        ]
        return [Hits(found.rows[part], found.scores[part]) for part in parts]


@dataclass(frozen=True, slots=True)
class Searched:
    """An index with the answer to the one search that is going to be asked of it."""

    index: DenseIndex
    hits: Hits

    def search(self, queries: Vectors, count: int) -> Hits:
        """The answer."""
        return self.hits if self.hits.rows.shape == (len(queries), count) else self.index.search(queries, count)

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """As the index itself."""
        return self.index.search_among(queries, rows, count)


RunSearch = Callable[[Sequence[SearchQuery], Plan], Found]


@dataclass(frozen=True, slots=True)
class _Planned:
    queries: tuple[SearchQuery, ...]
    plan: Plan


class SharedRuns:
    """Runs whole searches for the callers of one event loop, those of equal plans as one, in a thread of its own."""

    def __init__(self, run: RunSearch, name: str) -> None:
        """Prepares; `start` sets it going.

        Args:
            run: Searches.
            name: Of the thread.
        """
        self._search = run
        policy = BatchPolicy(_MAX_QUERIES, _MAX_QUERIES)
        self._batcher: Batcher[_Planned, Found] = Batcher(self._run, policy, name=f"search-{name}")

    async def start(self) -> None:
        """Starts the thread."""
        await self._batcher.start()

    async def stop(self) -> None:
        """Ends it."""
        await self._batcher.stop()

    async def run(self, queries: Sequence[SearchQuery], plan: Plan) -> Found:
        """What is found for the queries; the seconds are the batch's."""
        return await self._batcher.submit(_Planned(tuple(queries), plan), cost=len(queries))

    def _run(self, asked: Sequence[_Planned]) -> list[Found]:
        found: dict[int, Found] = {}
        for plan in dict.fromkeys(one.plan for one in asked):
            alike = [i for i, one in enumerate(asked) if one.plan == plan]
            together = self._search([query for i in alike for query in asked[i].queries], plan)
            hits = iter(together.hits)
            for i in alike:
                found[i] = replace(together, hits=tuple(islice(hits, len(asked[i].queries))))
        return [found[i] for i in range(len(asked))]
