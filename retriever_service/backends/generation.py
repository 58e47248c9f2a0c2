"""One index generation in an engine, as requests use it: what `generation.Generation` is for local ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from retriever_service.backends.ledger import Ledger, read_ledger
from retriever_service.backends.reader import RemoteReader, State, state_of
from retriever_service.backends.remote import Abilities, RemoteStore, refuse
from retriever_service.backends.stages import LexicalStages, RemoteStages, matching_of
from retriever_service.backends.words import telling_words
from retriever_service.backends.writer import RemoteWriter
from retriever_service.collection import CollectionSettings, LexicalScoring
from retriever_service.generation import Applied
from retriever_service.lexical_index import LexicalIndex
from retriever_service.search import Found, Mode, Plan, Search, SearchQuery
from retriever_service.store import Reader
from retriever_service.transaction import index_digest
from retriever_service.users import Users
from serving.deadline import Deadline
from serving.errors import Deadline as DeadlineExceeded
from serving.errors import FailedPrecondition

_POLL_SECONDS = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteIndex:
    """What is known of an index that an engine keeps. Its size there is not."""

    kind: str
    measured_recall: float
    num_vectors: int = 0
    num_bytes: int = 0


class RemoteGeneration:
    """One generation; the head takes writes through its `writer`. Its methods belong to the event loop.

    Attributes:
        number: Its own.
        store: Its documents.
        writer: Changes it; for the write thread.
        users: Requests that work on it now.
    """

    def __init__(self, number: int, store: RemoteStore, abilities: Abilities, ledger: Ledger) -> None:
        """Takes what the engine holds; `start` brings searches up to date."""
        self.number, self.store, self.abilities = number, store, abilities
        self._ledger = ledger
        self._seen = state_of(ledger, number)  # By searches.
        self.writer = RemoteWriter(store, self.refresh)
        self.users = Users(ledger.settings.name)
        recall = 1.0 if abilities.is_exact else float("nan")  # The engine's own: nobody has measured it here.
        self.dense = RemoteIndex(abilities.kind, recall)

    @property
    def settings(self) -> CollectionSettings:
        """The generation's."""
        return self._ledger.settings_of(self.number)

    @property
    def lexical(self) -> RemoteIndex:
        """The engine has both."""
        return self.dense

    @property
    def is_head(self) -> bool:
        """Whether it takes the writes."""
        return self.number == self._ledger.head

    @property
    def committed_sequence(self) -> int:
        """Of the last write that is known."""
        return self._ledger.sequence_of(self.number)

    @property
    def applied(self) -> Applied:
        """The state that searches are certain to include."""
        return Applied(self._seen.sequence, index_digest(self._reader(self._seen), self.settings.encoder.digest))

    @property
    def is_behind(self) -> bool:
        """Whether searches may miss something that is known to be written."""
        return self._seen != state_of(self._ledger, self.number)

    async def start(self) -> None:
        """Makes searches see what is written."""
        await asyncio.to_thread(self.refresh)
        num_vectors = await asyncio.to_thread(self.store.count, None)
        self.dense = replace(self.dense, num_vectors=num_vectors)

    def learn(self, ledger: Ledger) -> None:
        """Takes the ledger as it is by now."""
        self._ledger = ledger

    async def search(self, threads: Executor, queries: Sequence[SearchQuery], plan: Plan) -> Found:
        """Finds the passages for each query.

        Raises:
            Unimplemented: When the lexical stage is asked for and the engine has none.
        """
        if not self.abilities.lexical and any(query.mode is not Mode.DENSE for query in queries):
            raise refuse(self.abilities.kind, "lexical stage", "ask in dense mode, or use Milvus 2.5 or newer")
        language = self.settings.language
        telling = [replace(query, text=telling_words(query.text, language)) for query in queries]

        def run() -> Found:
            reader = RemoteReader(self.store, self.number, self.settings.encoder.dim, matching=matching_of(plan))
            stages = RemoteStages(self.store, reader, telling, plan)
            # The engine has filtered, and scores as the collection says.
            done = replace(plan, condition=None, lexical_scoring=LexicalScoring.BM25)
            # Without a condition, a search asks of its reader and its indexes only what these have.
            search = Search(cast(Reader, reader), stages, cast(LexicalIndex, LexicalStages(stages)), done)
            return search.run(telling)

        return await asyncio.get_running_loop().run_in_executor(threads, run)

    async def read(self, threads: Executor | None, reading: Callable[[Any], T]) -> T:
        """Reads the generation as it is now."""
        return await asyncio.get_running_loop().run_in_executor(threads, reading, self._reader())

    @contextmanager
    def scanning(self) -> Iterator[RemoteReader]:
        """A reader for a long read, in any thread."""
        yield self._reader()

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches include the write of this number.

        Raises:
            FailedPrecondition: When there was no such write, or the generation was frozen before it.
            Deadline: When the engine does not refresh, or the generation does not follow, in time.
        """
        try:
            async with asyncio.timeout(deadline.timeout()):
                while self._seen.sequence < sequence:
                    await asyncio.to_thread(self.refresh)
                    self._check_written(sequence)
                    if self._seen.sequence < sequence:
                        await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.abilities.kind} has not refreshed in time") from error

    def refresh(self) -> None:
        """Makes searches see every write that has returned. For threads."""
        ledger = self._ledger.followed(read_ledger(self.store))
        with self.writer.refreshing():
            self.store.refresh()
        if ledger.revision >= self._ledger.revision:
            self._ledger = ledger
        state = state_of(ledger, self.number)
        if state.sequence >= self._seen.sequence:  # Another thread's refresh may have overtaken this one.
            self._seen = state

    def _check_written(self, sequence: int) -> None:
        name, last = self.settings.name, self._ledger.sequence_of(self.number)
        if self.number in self._ledger.kept and sequence > last:
            raise FailedPrecondition(
                f"min_sequence {sequence} lies beyond change {last}, at which this index generation of collection "
                f"{name!r} was frozen: ask the one that takes the writes, or activate it",
                reason="SEQUENCE_NOT_IN_GENERATION",
            )
        if sequence > self._ledger.sequence:
            raise FailedPrecondition(
                f"min_sequence {sequence} lies beyond the last change of collection {name!r}, {self._ledger.sequence}",
                reason="SEQUENCE_NOT_WRITTEN",
            )

    def _reader(self, state: State | None = None) -> RemoteReader:
        return RemoteReader(self.store, self.number, self.settings.encoder.dim, state=state, see=self._see)

    def _see(self) -> None:
        if self.writer.has_unrefreshed or self.is_behind:
            self.refresh()
