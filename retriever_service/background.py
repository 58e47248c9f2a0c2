"""Work that goes on when the caller who began it leaves."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Keeps the tasks that nobody may cancel. For one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts work, free of the present request's deadline."""
        task = asyncio.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that must not stop half-way; when the caller leaves, it goes on."""
        return await asyncio.shield(self.begin(work))

    async def finish(self) -> None:
        """Returns when all of it is done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
