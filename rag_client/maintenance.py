"""The methods of both clients that are about collections as wholes."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TypeVar

from rag_client import maintenance_calls
from rag_client.calls import Call
from rag_client.channel import LONG_TIMEOUT_SECONDS
from rag_client.filters import Filter
from rag_client.maintenance_types import (
    Activation,
    Difference,
    ExportBatch,
    PatchResult,
    PurgeResult,
    ReencodingProgress,
    Snapshot,
)
from rag_client.types import Value

Result = TypeVar("Result")
Item = TypeVar("Item")


class Maintenance(ABC):
    """Part of `RagClient`."""

    @abstractmethod
    def _run(self, call: Call[Result], timeout: float | None) -> Result: ...

    @abstractmethod
    def _stream(self, call: Call[Item | None], timeout: float | None) -> Iterator[Item]: ...

    def patch_metadata(
        self,
        *,
        set: Mapping[str, Value] | None = None,
        remove: Sequence[str] = (),
        ids: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        filter: Filter | None = None,
        collection: str = "default",
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> PatchResult:
        """Sets and removes metadata fields of the passages that exactly one of ids, sources and filter selects."""
        call = maintenance_calls.patch_metadata(collection, ids, sources, filter, set or {}, remove)
        return self._run(call, timeout)

    def purge(
        self,
        *,
        ids: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        collection: str = "default",
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> PurgeResult:
        """Erases passages, or sources with theirs, from every generation and file; no roll-back brings them back."""
        return self._run(maintenance_calls.purge(collection, ids, sources), timeout)

    def create_snapshot(
        self, label: str = "", *, collection: str = "default", timeout: float = LONG_TIMEOUT_SECONDS
    ) -> Snapshot:
        """Freezes the collection's present state."""
        return self._run(maintenance_calls.create_snapshot(collection, label), timeout)

    def list_snapshots(self, *, collection: str = "default", timeout: float | None = None) -> list[Snapshot]:
        """Every index generation, newest first; the live ones take writes."""
        return self._run(maintenance_calls.list_snapshots(collection), timeout)

    def activate_snapshot(
        self, index_generation: int, *, collection: str = "default", timeout: float = LONG_TIMEOUT_SECONDS
    ) -> Activation:
        """Serves a generation from now on; no call fails meanwhile."""
        return self._run(maintenance_calls.activate_snapshot(collection, index_generation), timeout)

    def drop_snapshot(
        self, index_generation: int, *, collection: str = "default", timeout: float | None = None
    ) -> None:
        """Deletes a snapshot that is not served."""
        self._run(maintenance_calls.drop_snapshot(collection, index_generation), timeout)

    def diff_snapshots(
        self, before: int, after: int, *, collection: str = "default", timeout: float = LONG_TIMEOUT_SECONDS
    ) -> Iterator[Difference]:
        """The passages that differ between two generations, in id order."""
        return self._stream(maintenance_calls.diff_snapshots(collection, before, after), timeout)

    def export_collection(
        self,
        *,
        collection: str = "default",
        index_generation: int = 0,
        include_vectors: bool = False,
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> Iterator[ExportBatch]:
        """One state's whole content, in batches; generation 0 is the active one."""
        call = maintenance_calls.export_collection(collection, index_generation, include_vectors=include_vectors)
        return self._stream(call, timeout)

    def reencode_collection(
        self,
        encoder: str = "",
        *,
        activate: bool = False,
        collection: str = "default",
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> Iterator[ReencodingProgress]:
        """Builds a generation with another encoder's vectors (default: the server's default encoder).

        Abandoned, it goes on where it was when it is asked for again.
        """
        call = maintenance_calls.reencode_collection(collection, encoder, activate=activate)
        return self._stream(call, timeout)


class AsyncMaintenance(ABC):
    """Part of `AsyncRagClient`."""

    @abstractmethod
    async def _run(self, call: Call[Result], timeout: float | None) -> Result: ...

    @abstractmethod
    def _stream(self, call: Call[Item | None], timeout: float | None) -> AsyncIterator[Item]: ...

    async def patch_metadata(
        self,
        *,
        set: Mapping[str, Value] | None = None,
        remove: Sequence[str] = (),
        ids: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        filter: Filter | None = None,
        collection: str = "default",
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> PatchResult:
        """Sets and removes metadata fields of the passages that exactly one of ids, sources and filter selects."""
        call = maintenance_calls.patch_metadata(collection, ids, sources, filter, set or {}, remove)
        return await self._run(call, timeout)

    async def purge(
        self,
        *,
        ids: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        collection: str = "default",
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> PurgeResult:
        """Erases passages, or sources with theirs, from every generation and file; no roll-back brings them back."""
        return await self._run(maintenance_calls.purge(collection, ids, sources), timeout)

    async def create_snapshot(
        self, label: str = "", *, collection: str = "default", timeout: float = LONG_TIMEOUT_SECONDS
    ) -> Snapshot:
        """Freezes the collection's present state."""
        return await self._run(maintenance_calls.create_snapshot(collection, label), timeout)

    async def list_snapshots(self, *, collection: str = "default", timeout: float | None = None) -> list[Snapshot]:
        """Every index generation, newest first; the live ones take writes."""
        return await self._run(maintenance_calls.list_snapshots(collection), timeout)

    async def activate_snapshot(
        self, index_generation: int, *, collection: str = "default", timeout: float = LONG_TIMEOUT_SECONDS
    ) -> Activation:
        """Serves a generation from now on; no call fails meanwhile."""
        return await self._run(maintenance_calls.activate_snapshot(collection, index_generation), timeout)

    async def drop_snapshot(
        self, index_generation: int, *, collection: str = "default", timeout: float | None = None
    ) -> None:
        """Deletes a snapshot that is not served."""
        await self._run(maintenance_calls.drop_snapshot(collection, index_generation), timeout)

    def diff_snapshots(
        self, before: int, after: int, *, collection: str = "default", timeout: float = LONG_TIMEOUT_SECONDS
    ) -> AsyncIterator[Difference]:
        """The passages that differ between two generations, in id order."""
        return self._stream(maintenance_calls.diff_snapshots(collection, before, after), timeout)

    def export_collection(
        self,
        *,
        collection: str = "default",
        index_generation: int = 0,
        include_vectors: bool = False,
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> AsyncIterator[ExportBatch]:
        """One state's whole content, in batches; generation 0 is the active one."""
        call = maintenance_calls.export_collection(collection, index_generation, include_vectors=include_vectors)
        return self._stream(call, timeout)

    def reencode_collection(
        self,
        encoder: str = "",
        *,
        activate: bool = False,
        collection: str = "default",
        timeout: float = LONG_TIMEOUT_SECONDS,
    ) -> AsyncIterator[ReencodingProgress]:
        """Builds a generation with another encoder's vectors (default: the server's default encoder).

        Abandoned, it goes on where it was when it is asked for again.
        """
        call = maintenance_calls.reencode_collection(collection, encoder, activate=activate)
        return self._stream(call, timeout)
