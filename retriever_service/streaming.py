"""A long read of a store as a stream: in a thread of its own, one consistent state, a batch at a time.

Who takes the stream may be slow. Who erases what it is read from waits a moment for that, and then the read is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, TypeVar

from retriever_service.users import Users
from serving.errors import FailedPrecondition

_PATIENCE_SECONDS = 5.0

T = TypeVar("T")
Give = Callable[[T], Awaitable[None]]


class Scanned(Protocol):
    """What can be read for long: a generation."""

    def scanning(self) -> AbstractContextManager[Any]:
        """A reader of its present state, of its own."""
        ...


async def scan(generations: tuple[Scanned, ...], reading: Callable[..., Iterator[T]]) -> AsyncGenerator[T, None]:
    """What `reading` yields from one reader of each generation; the next is read when the last was taken."""
    loop, thread, stack = asyncio.get_running_loop(), ThreadPoolExecutor(1, thread_name_prefix="scan"), ExitStack()

    def start() -> Iterator[T]:
        return reading(*(stack.enter_context(one.scanning()) for one in generations))

    try:
        items = await loop.run_in_executor(thread, start)
        while (item := await loop.run_in_executor(thread, next, items, None)) is not None:
            yield item
    finally:
        await asyncio.to_thread(thread.shutdown)
        stack.close()


async def delivered(read: Callable[[Give[T]], Awaitable[None]]) -> AsyncIterator[T]:
    """What `read` gives, one ahead of the taker, in a task of its own: it can be ended while the taker does nothing."""
    items: asyncio.Queue[T] = asyncio.Queue(1)
    reading = asyncio.ensure_future(read(items.put))
    try:
        while True:
            taking = asyncio.ensure_future(items.get())
            await asyncio.wait((taking, reading), return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                yield taking.result()
                continue
            taking.cancel()
            await reading  # Raises what ended it.
            while not items.empty():
                yield items.get_nowait()
            return
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def ended_by(users: Sequence[Users]) -> AsyncIterator[None]:
    """Ends the task some seconds after one of those whose users it belongs to is to be closed.

    Raises:
        FailedPrecondition: When that happened.
    """
    try:
        async with asyncio.timeout(None) as limit:
            watching = asyncio.ensure_future(_limit(limit, users))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError as error:
        raise FailedPrecondition(
            "the collection was purged, dropped or replaced while it was read, and the reader was slow: read it again",
            reason="READ_ENDED",
        ) from error


async def _limit(limit: asyncio.Timeout, users: Sequence[Users]) -> None:
    closings = [asyncio.ensure_future(one.closing.wait()) for one in users]
    try:
        await asyncio.wait(closings, return_when=asyncio.FIRST_COMPLETED)
        limit.reschedule(asyncio.get_running_loop().time() + _PATIENCE_SECONDS)
    finally:
        for closing in closings:
            closing.cancel()
