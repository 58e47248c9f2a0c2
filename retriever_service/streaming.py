"""A long read of a store as a stream: in a thread of its own, one consistent state, a batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from retriever_service.store import Store

T = TypeVar("T")


async def scan(stores: tuple[Store, ...], reading: Callable[..., Iterator[T]]) -> AsyncIterator[T]:
    """What `reading` yields from one reader of each store; the next is read when the last was taken."""
    loop, thread, stack = asyncio.get_running_loop(), ThreadPoolExecutor(1, thread_name_prefix="scan"), ExitStack()

    def start() -> Iterator[T]:
        return reading(*(stack.enter_context(store.scanning()) for store in stores))

    try:
        items = await loop.run_in_executor(thread, start)
        while (item := await loop.run_in_executor(thread, next, items, None)) is not None:
            yield item
    finally:
        await asyncio.to_thread(thread.shutdown)
        stack.close()
