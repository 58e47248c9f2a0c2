"""Answers kept for equal questions, as long as nothing that they depend on has changed.

An entry names the state of the collection that its passages came from and the generator that decoded it. Before it is
used, both services are asked for what they would use now: any write, by whatever way it came, shows there.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.answers import Made
from gateway.stages import Generator, Question, Retriever

_ENTRY_BYTES = 1024  # What an entry takes beside its messages, about.


class CacheObserver(Protocol):
    """Is told what the cache does."""

    def cache_lookup(self, outcome: str) -> None:
        """A question was looked up: "hit", "miss" or "uncacheable"."""

    def cache_removal(self, reason: str) -> None:
        """An entry went: "changed", "expired", "evicted" or "replaced"."""

    def cache_bytes(self, num_bytes: int) -> None:
        """What the entries take now."""


@dataclass(frozen=True, slots=True)
class _Entry:
    made: Made
    state: str
    digest: str
    num_bytes: int
    expires_at: float


class AnswerCache:
    """Least recently used answers, bounded in bytes and in time. For one event loop."""

    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        observer: CacheObserver,
        *,
        max_bytes: int,
        ttl_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """An empty cache.

        Args:
            retriever: Says the state of collections.
            generator: Says its digest.
            observer: Is told of hits, misses and removals.
            max_bytes: Of all entries together.
            ttl_seconds: How long an entry is used at most.
            now: The clock, in seconds.
        """
        self._retriever, self._generator, self._observer, self._now = retriever, generator, observer, now
        self._max_bytes, self._ttl_seconds = max_bytes, ttl_seconds
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._num_bytes = 0

    async def recall(self, question: Question, *, timeout: float | None) -> Made | None:
        """What was made for an equal question, when it would be made again now.

        Raises:
            RagError: A service does not answer; the question would fail there too.
        """
        key = question.cache_key
        if key is None:
            self._observer.cache_lookup("uncacheable")
            return None
        entry = self._recent(key)
        if entry is not None and not await self._is_current(question, entry, timeout):
            self._remove(key, "changed")
            entry = None
        self._observer.cache_lookup("miss" if entry is None else "hit")
        return None if entry is None else entry.made

    def remember(self, question: Question, made: Made) -> None:
        """Keeps what was made for a question, where it can be told later whether it still holds."""
        key, state = question.cache_key, made.retrieval.state
        digests = {each.digest for each in made.generations}
        is_named = len(digests) == 1 and "" not in digests if question.needs_generator else True
        num_bytes = made.retrieval.num_bytes + sum(each.num_bytes for each in made.generations) + _ENTRY_BYTES
        is_whole = made.is_answered and is_named and (state or not question.needs_passages)
        if key is None or not is_whole or num_bytes > self._max_bytes:
            return
        made = replace(made, retrieval=replace(made.retrieval, space=None), from_cache=True)
        self._remove(key, "replaced")  # By an equal question that was asked at the same time.
        expires_at = self._now() + self._ttl_seconds
        self._entries[key] = _Entry(made, state, next(iter(digests), ""), num_bytes, expires_at)
        self._num_bytes += num_bytes
        while self._num_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)), "evicted")
        self._observer.cache_bytes(self._num_bytes)

    def _recent(self, key: bytes) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._now() >= entry.expires_at:
            self._remove(key, "expired")
            return None
        self._entries.move_to_end(key)
        return entry

    async def _is_current(self, question: Question, entry: _Entry, timeout: float | None) -> bool:
        checks = []
        if question.needs_passages:
            checks.append(self._is_state(question, entry.state, timeout))
        if question.needs_generator:
            checks.append(self._is_generator(entry.digest, timeout))
        return all(await asyncio.gather(*checks))

    async def _is_state(self, question: Question, state: str, timeout: float | None) -> bool:
        return await self._retriever.state(question, timeout=timeout) == state

    async def _is_generator(self, digest: str, timeout: float | None) -> bool:
        return (await self._generator.checkpoint(timeout=timeout)).digest == digest

    def _remove(self, key: bytes, reason: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:  # It may have gone while its state was asked for.
            self._num_bytes -= entry.num_bytes
            self._observer.cache_removal(reason)
            self._observer.cache_bytes(self._num_bytes)
