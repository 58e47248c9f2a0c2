"""Who works on something that is to be closed after the last of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.errors import NotFound


class Users:
    """Counts the users of a collection, or of one of its generations. For one event loop."""

    def __init__(self, collection: str) -> None:
        """Takes the collection's name, for the message."""
        self._collection = collection
        self.num = 0
        self.closing = asyncio.Event()  # Set once somebody waits for the last one to leave.
        self._left = asyncio.Condition()

    @property
    def is_closing(self) -> bool:
        """Whether nobody is let in any more."""
        return self.closing.is_set()

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Counts one more meanwhile.

        Raises:
            NotFound: When it is closing.
        """
        if self.is_closing:
            raise NotFound(f"collection {self._collection!r} is being dropped", reason="COLLECTION_NOT_FOUND")
        self.num += 1
        try:
            yield
        finally:
            self.num -= 1
            if self.is_closing:
                async with self._left:
                    self._left.notify_all()

    async def close(self) -> None:
        """Lets nobody in any more; returns when the last one has left."""
        self.closing.set()
        async with self._left:
            await self._left.wait_for(lambda: self.num == 0)
