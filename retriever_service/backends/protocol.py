"""What a backend is to the rest of the retriever: collections, and what requests do with an open one.

Satisfied by `catalog.Catalog` with `live_collection.LiveCollection` (files on this machine: the local backend), and by
`backends.catalog.RemoteCatalog` with `backends.collection.RemoteCollection` over any engine of `backends.remote`.

Every backend must create, open and drop collections, write durably, tell writes by sequence numbers, and search with
filters that leak nothing; candidates may be approximate, scores and ranking are exact and ours. A backend may refuse
with Unimplemented, naming itself: a lexical stage or a way to score it, kinds of filters, and what `local` guards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar

from retriever_service.batch import Batch, Patch, Written
from retriever_service.collection import CollectionSettings
from retriever_service.filters import Condition
from retriever_service.generation import Applied
from retriever_service.live_collection import LiveCollection
from retriever_service.search import Found, Plan, SearchQuery
from retriever_service.users import Users
from serving.deadline import Deadline
from serving.errors import Unimplemented

T = TypeVar("T")


class IndexInfo(Protocol):
    """What is known of an index."""

    @property
    def kind(self) -> str:
        """Which one it is."""
        ...

    @property
    def measured_recall(self) -> float:
        """Recall@10 against exact search; NaN where nobody has measured it."""
        ...

    @property
    def num_vectors(self) -> int:
        """Vectors held, as of late."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory held on this machine."""
        ...


class SizedIndex(Protocol):
    """The lexical index."""

    @property
    def num_bytes(self) -> int:
        """Size on this machine."""
        ...


class OpenGeneration(Protocol):
    """What is searched and read. `Reader` stands for `store.Reader` or what reads as it does."""

    @property
    def users(self) -> Users:
        """Who works on it now."""
        ...

    @property
    def settings(self) -> CollectionSettings:
        """The collection's."""
        ...

    @property
    def applied(self) -> Applied:
        """The state that searches are certain to include."""
        ...

    @property
    def committed_sequence(self) -> int:
        """Of the last write that is known."""
        ...

    @property
    def dense(self) -> IndexInfo:
        """The dense index."""
        ...

    @property
    def lexical(self) -> SizedIndex:
        """The lexical index."""
        ...

    async def search(self, threads: Executor, queries: Sequence[SearchQuery], plan: Plan) -> Found:
        """Finds the passages for each query."""
        ...

    async def read(self, threads: Executor | None, reading: Callable[[Any], T]) -> T:
        """Reads one state in a thread."""
        ...

    def scanning(self) -> AbstractContextManager[Any]:
        """A reader of one state for a long read, in any thread."""
        ...

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches include the write of this number."""
        ...


class Served(Protocol):
    """What a request works on from beginning to end."""

    @property
    def index_generation(self) -> int:
        """Its number."""
        ...

    @property
    def generation(self) -> OpenGeneration:
        """What is searched."""
        ...

    @property
    def settings(self) -> CollectionSettings:
        """Those that hold for it."""
        ...

    @property
    def is_head(self) -> bool:
        """Whether it takes the writes."""
        ...

    @property
    def has_lexical(self) -> bool:
        """Whether there is a lexical stage."""
        ...


class OpenCollection(Protocol):
    """One open collection."""

    @property
    def users(self) -> Users:
        """Who uses it now."""
        ...

    @property
    def settings(self) -> CollectionSettings:
        """The head's."""
        ...

    def in_use(self) -> AbstractAsyncContextManager[None]:
        """Keeps the collection open."""
        ...

    def serving(self, index_generation: int = 0) -> AbstractAsyncContextManager[Served]:
        """What is searched: the active generation, or the one of this number."""
        ...

    def using_head(self) -> AbstractAsyncContextManager[OpenGeneration]:
        """What takes the writes."""
        ...

    async def start(self) -> None:
        """Brings the indexes up to date."""
        ...

    async def close(self) -> None:
        """Waits for those who use it, and closes it."""
        ...

    async def read(self, threads: Executor | None, reading: Callable[[Any], T]) -> T:
        """Reads one state of the head in a thread."""
        ...

    async def write(self, batch: Batch) -> Written:
        """Writes a batch; durable when it returns."""
        ...

    async def delete(self, condition: Condition, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`; durable when it returns."""
        ...

    async def patch(self, condition: Condition, change: Patch) -> Written:
        """Changes the metadata of matching passages; durable when it returns."""
        ...

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches include the write of this number."""
        ...

    async def configure(self, change: Callable[[CollectionSettings], CollectionSettings]) -> None:
        """Changes the scoring."""
        ...


class Backend(Protocol):
    """Where collections are. Blocking; for threads."""

    def lock(self) -> None:
        """Takes, or reaches, what collections are kept in."""
        ...

    def unlock(self) -> None:
        """Lets go of it."""
        ...

    @property
    def keeps_sentence_vectors(self) -> bool:
        """Whether collections do that are made from now on and do not say."""
        ...

    def names(self) -> list[str]:
        """The collections there are, in order."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a collection by now."""
        ...

    def create(self, settings: CollectionSettings) -> None:
        """Makes an empty collection."""
        ...

    def open(self, name: str) -> OpenCollection:
        """Opens a collection; it wants `start`."""
        ...

    def drop(self, name: str) -> None:
        """Deletes a closed collection."""
        ...


def local(collection: OpenCollection, what: str) -> LiveCollection:
    """The collection, for what only collections in local files have.

    Raises:
        Unimplemented: When it is kept elsewhere.
    """
    if not isinstance(collection, LiveCollection):
        raise Unimplemented(
            f"collection {collection.settings.name!r} has no {what}: its backend is not the local one",
            reason="BACKEND_LACKS_IT",
        )
    return collection
