"""rag.v1.RetrieverService of a read replica, which refuses writes, and of a writer that publishes to replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from retriever_service import convert
from retriever_service.replicas.follower import Follower
from retriever_service.replicas.publisher import Publisher
from retriever_service.servicer import RetrieverServicer
from serving.errors import FailedPrecondition

WRITES = frozenset({
    "Upsert", "Delete", "Purge", "PatchMetadata", "CreateSnapshot", "ActivateSnapshot", "DropSnapshot",
    "ReencodeCollection", "CreateCollection", "ConfigureCollection", "DropCollection",
})  # fmt: skip
_PUBLISHED_AFTER = frozenset({"CreateSnapshot", "ActivateSnapshot", "CreateCollection", "ConfigureCollection"})
_ERASING = frozenset({"DropSnapshot", "DropCollection"})


class ReaderServicer(RetrieverServicer):
    """Serves what a follower keeps up to date."""

    def __init__(self, follower: Follower, *args: Any, **kwargs: Any) -> None:
        """Takes the follower, and what `RetrieverServicer` takes."""
        super().__init__(*args, **kwargs)
        self._follower = follower
        for name in WRITES:
            setattr(self, name, self._refusing_stream(name) if name == "ReencodeCollection" else self._refusing(name))

    async def Retrieve(self, request: Any, context: Any) -> Any:
        """Finds passages, when the replica has what the request wants to be included."""
        options = convert.options_from(request.options)
        await self._follower.reach(options.collection, options.index_generation, options.min_sequence)
        return await super().Retrieve(request, context)

    async def GetInfo(self, request: Any, context: Any) -> Any:
        """Says what this replica is, and how far behind its writer."""
        reply = await super().GetInfo(request, context)
        reply.role = reply.ROLE_READER
        reply.writer_address = self._follower.writer_address
        reply.replication_lag_seconds = self._follower.lag_seconds
        return reply

    def _refusal(self, name: str) -> FailedPrecondition:
        address = self._follower.writer_address
        message = f"this retriever is a read replica: send {name} to the writer, {address}"
        return FailedPrecondition(message, reason="READ_ONLY_REPLICA")

    def _refusing(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def refuse(request: Any, context: Any) -> Any:
            raise self._refusal(name)

        return refuse

    def _refusing_stream(self, name: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def refuse(request: Any, context: Any) -> AsyncIterator[Any]:
            raise self._refusal(name)
            yield

        return refuse


class WriterServicer(RetrieverServicer):
    """Serves a writer, and says when there is something to publish."""

    def __init__(self, publisher: Publisher, *args: Any, **kwargs: Any) -> None:
        """Takes the publisher, and what `RetrieverServicer` takes."""
        super().__init__(*args, **kwargs)
        self._publisher = publisher
        for name in _PUBLISHED_AFTER | _ERASING:
            setattr(self, name, self._publishing(getattr(self, name), erases=name in _ERASING))
        for name in WRITES - {"ReencodeCollection"}:
            setattr(self, name, self._checking(getattr(self, name)))

    async def Purge(self, request: Any, context: Any) -> Any:
        """Erases passages or sources for good, from what is published as well."""
        reply = await super().Purge(request, context)
        await self._publisher.erased()
        return reply

    async def ReencodeCollection(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Re-encodes, streaming progress."""
        self._publisher.check()
        async for reply in super().ReencodeCollection(request, context):
            yield reply
        self._publisher.changed()

    def _checking(self, serve: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def check_and_serve(request: Any, context: Any) -> Any:
            self._publisher.check()
            return await serve(request, context)

        return check_and_serve

    def _publishing(
        self, serve: Callable[[Any, Any], Awaitable[Any]], *, erases: bool
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def serve_and_publish(request: Any, context: Any) -> Any:
            reply = await serve(request, context)
            self._publisher.changed(erases=erases)
            return reply

        return serve_and_publish
