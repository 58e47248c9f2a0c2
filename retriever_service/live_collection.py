"""A collection that changes while it is searched: its head takes the writes, one generation is served, others wait.

Every request works on one generation from beginning to end; replacing what is served is one assignment, made after the
record on disk has said the same. What is replaced is closed after its last user.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from retriever_service.background import Background
from retriever_service.batch import Batch, Patch, Written
from retriever_service.collection import CollectionSettings
from retriever_service.dense_index import MakeDenseIndex
from retriever_service.filters import Condition
from retriever_service.generation import Generation
from retriever_service.generations import Generations, Record, Scoring
from retriever_service.pinned import Pinned, State
from retriever_service.snapshot_files import check_files
from retriever_service.store import Reader
from retriever_service.stored_settings import settings_to_json
from retriever_service.users import Users
from retriever_service.writing import Writer
from serving.deadline import Deadline
from serving.errors import RagError

_MAX_OPEN_SNAPSHOTS = 2  # Besides the active one: each holds its dense index in memory.

T = TypeVar("T")


class EncoderChanged(RagError):
    """The collection was re-encoded since these vectors were made: make them again. Never reaches a caller."""


class LiveCollection:
    """One open collection. Its methods belong to the event loop; blocking work goes to its threads."""

    _has_frozen_head: ClassVar[bool] = False

    def __init__(self, directory: Path, make_dense_index: MakeDenseIndex) -> None:
        """Opens the head's files, blocking; `start` brings everything up to date."""
        self.generations, self.make_dense_index = Generations(directory), make_dense_index
        self.generations.delete_unnamed()
        record = self.generations.record
        head = Generation(self.generations.path(record.head), make_dense_index, is_frozen=self._has_frozen_head)
        self._state = State(record, head)
        self.write_thread = ThreadPoolExecutor(1, thread_name_prefix=f"write-{self.settings.name}")
        self.changing = asyncio.Lock()  # Held while the record changes.
        self.gate = asyncio.Lock()  # Held by each write, and while another generation becomes the head.
        self.successor_lock = asyncio.Lock()  # Held by each step that writes to the successor's store.
        self.reencoding = asyncio.Lock()  # Held while a successor is being completed.
        self.written = asyncio.Event()  # Set by each write; the successor's follower clears it.
        self.opening = asyncio.Lock()  # Held while `opened` changes.
        self._closing: dict[int, asyncio.Task[None]] = {}
        self._background = Background()
        self.follower: asyncio.Task[None] | None = None  # Brings a complete successor what is written to the head.
        self.users = Users(self.settings.name)

    @property
    def record(self) -> Record:
        """Which generations there are."""
        return self._state.record

    def check_exists(self, number: int) -> None:
        """Raises NotFound when no generation of this number can be served."""
        self._state.check_exists(number)

    @property
    def head(self) -> Generation:
        """The generation that takes the writes."""
        return self._state.head

    @property
    def opened(self) -> Mapping[int, Generation]:
        """Open generations besides the head."""
        return self._state.opened

    @property
    def settings(self) -> CollectionSettings:
        """The head's."""
        return self.head.settings

    async def start(self) -> None:
        """Brings the head's indexes up to date; `recovery.recover` does the rest."""
        await self.head.start()

    async def close(self) -> None:
        """Waits for those who use the collection, then closes its files."""
        await self.users.close()
        await self._background.finish()  # What is under way may begin to follow.
        if self.follower is not None:
            self.follower.cancel()
            await asyncio.gather(self.follower, return_exceptions=True)
        await self._background.finish()
        for generation in (self.head, *self._state.opened.values()):
            await generation.close()
        await asyncio.to_thread(self.write_thread.shutdown)

    def in_use(self) -> AbstractAsyncContextManager[None]:
        """Keeps the collection open.

        Raises:
            NotFound: When it is being dropped.
        """
        return self.users.in_use()

    @asynccontextmanager
    async def serving(self, index_generation: int = 0) -> AsyncIterator[Pinned]:
        """The generation of this number, or the active one for 0, kept open meanwhile.

        Raises:
            NotFound: When there is none; the message names those there are.
        """
        while True:
            state = self._state
            number = index_generation or state.record.active
            generation = state.find(number)
            if generation is not None:
                break
            await self.to_the_end(self.open(number))
        async with generation.in_use():
            yield Pinned(number, generation, state.settings_of(number, generation), generation is state.head)

    @asynccontextmanager
    async def using_head(self) -> AsyncIterator[Generation]:
        """The generation that takes the writes, kept open meanwhile."""
        head = self.head
        async with head.in_use():
            yield head

    async def read(self, threads: Executor | None, reading: Callable[[Reader], T]) -> T:
        """Reads one state of the head in a thread."""
        async with self.using_head() as head:
            return await head.read(threads, reading)

    async def write(self, batch: Batch) -> Written:
        """Commits a batch; durable when it returns.

        Raises:
            EncoderChanged: When the head holds vectors of another encoder than the batch does.
        """
        return await self._change(lambda writer: writer.write(batch), batch.encoder_digest)

    async def delete(self, condition: Condition, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`; durable when it returns."""
        return await self._change(lambda writer: writer.delete(condition, sources))

    async def patch(self, condition: Condition, change: Patch) -> Written:
        """Changes the metadata of matching passages; durable when it returns."""
        return await self._change(lambda writer: writer.patch(condition, change))

    async def wait_for(self, sequence: int, deadline: Deadline) -> None:
        """Returns when searches of the head include the change of this number."""
        async with self.using_head() as head:
            await head.wait_for(sequence, deadline)

    async def configure(self, change: Callable[[CollectionSettings], CollectionSettings]) -> None:
        """Changes the scoring of what is served, and of the head where it has the same encoder."""

        async def run() -> None:
            async with self.changing, self.serving() as served:
                settings = change(served.settings)
                if served.generation.is_frozen:
                    scoring = Scoring(settings.temperature, settings.fusion)
                    scorings = {**self.record.scorings, served.index_generation: scoring}
                    await self.commit(replace(self.record, scorings=scorings))
                live = [served.generation, self.head]
                for generation in {id(one): one for one in live if not one.is_frozen}.values():
                    if generation.settings.encoder.digest == settings.encoder.digest:
                        await self._configure(generation, settings)

        await self.to_the_end(run())

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that must not stop half-way; when the caller leaves, it goes on."""
        return await self._background.to_the_end(work)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts work that nobody awaits to the end, free of the present request's deadline."""
        return self._background.begin(work)

    async def commit(
        self, record: Record, *, head: Generation | None = None, opened: Mapping[int, Generation] | None = None
    ) -> None:
        """Makes a record the truth on disk, then what requests see. Only within `to_the_end`, holding `changing`."""
        await asyncio.to_thread(self.generations.write, record)
        state = self._state
        self._state = State(record, head or state.head, state.opened if opened is None else opened)

    async def open(self, number: int) -> Generation:
        """Opens a generation that is not the head, so that it can be served at once.

        Raises:
            NotFound: When there is no such generation; the message names those there are.
        """
        while True:
            if number in self._closing:  # Its files have one owner at a time.
                await asyncio.shield(self._closing[number])
            async with self.opening:
                if (there := self._state.find(number)) is not None:
                    return there
                self._state.check_exists(number)
                if number in self._closing:
                    continue
                generation = await asyncio.to_thread(self._open_files, number)
                try:
                    await generation.start()
                except BaseException:
                    await generation.close()
                    raise
                self._state = replace(self._state, opened={**self._state.opened, number: generation})
            self._close_idle(keep=number)
            return generation

    async def replace(self, record: Record, number: int) -> None:
        """Commits a record in which a generation that is not the head has another directory, or none."""
        async with self.opening:
            opened = dict(self.opened)
            former = opened.pop(number, None)
            await self.commit(record, opened=opened)
        await self.retire(former)

    async def retire(self, former: Generation | None) -> None:
        """Closes a replaced generation after its last user, then deletes every directory that nobody owns."""
        if former is not None:
            await former.close()
        await asyncio.to_thread(self.generations.delete_unnamed)

    def _open_files(self, number: int) -> Generation:
        directory = self.generations.path(number)
        is_frozen = number != self.record.successor
        if is_frozen:
            check_files(directory)
        return Generation(directory, self.make_dense_index, is_frozen=is_frozen)

    def _close_idle(self, keep: int) -> None:
        """Closes unused snapshots, those opened first before others, when there are more than may be."""
        record, opened = self.record, dict(self._state.opened)
        others = [number for number in opened if number not in (keep, record.active, record.successor)]
        idle = [number for number in others if not opened[number].users.num]
        for number in idle[: max(0, len(others) + 1 - _MAX_OPEN_SNAPSHOTS)]:
            self._closing[number] = self.begin(self._close(number, opened.pop(number)))
        self._state = replace(self._state, opened=opened)

    async def _close(self, number: int, generation: Generation) -> None:
        try:
            await generation.close()
        finally:
            del self._closing[number]

    async def _configure(self, generation: Generation, settings: CollectionSettings) -> None:
        changed = replace(generation.settings, temperature=settings.temperature, fusion=settings.fusion)
        writer = Writer(generation.store, changed.filterable_fields)
        meta = {"settings": settings_to_json(changed)}
        async with self.gate:
            await self.run_writing(lambda: writer.set_meta(meta))
        generation.settings = changed

    async def _change(self, change: Callable[[Writer], Written], encoder_digest: str = "") -> Written:
        return await self.to_the_end(self._commit_change(change, encoder_digest))

    async def _commit_change(self, change: Callable[[Writer], Written], encoder_digest: str) -> Written:
        async with self.gate:
            head = self.head
            if encoder_digest not in ("", head.settings.encoder.digest):
                raise EncoderChanged("the collection was re-encoded meanwhile")
            writer = Writer(head.store, head.settings.filterable_fields)
            written = await self.run_writing(lambda: change(writer))
        head.committed_sequence = max(head.committed_sequence, written.sequence)
        head.wake()
        self.written.set()
        return written

    async def run_writing(self, work: Callable[[], T]) -> T:
        """Runs work in the one thread that writes to the head."""
        return await asyncio.get_running_loop().run_in_executor(self.write_thread, work)
