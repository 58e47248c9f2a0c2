"""The services behind the gateway, as it is configured to reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.clients import GENERATOR_SERVICE, RETRIEVER_SERVICE, Backend


class Backends:
    """The services behind the gateway. `writer` is the retriever that takes writes; it may be `retriever` itself."""

    def __init__(
        self,
        retriever: str,
        generator: str,
        writer: str,
        *,
        max_message_bytes: int,
        on_error: Callable[[str, str], None],
    ) -> None:
        """Prepares the channels; see `Backend`."""
        limits: dict[str, Any] = {"max_message_bytes": max_message_bytes, "on_error": on_error}
        self.retriever = Backend("retriever", retriever, RETRIEVER_SERVICE, **limits)
        self.generator = Backend("generator", generator, GENERATOR_SERVICE, **limits)
        named = "retriever_writer"
        self.writer = Backend(named, writer, RETRIEVER_SERVICE, **limits) if writer else self.retriever

    async def check(self) -> None:
        """What an answer needs is SERVING; that does not include a writer of its own.

        Raises:
            NotReady: Says which one is not.
        """
        await asyncio.gather(self.retriever.check(), self.generator.check())

    async def close(self) -> None:
        """Closes the channels."""
        await asyncio.gather(*(backend.close() for backend in {self.retriever, self.writer, self.generator}))
