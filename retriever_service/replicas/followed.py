"""A collection on a reader: every generation is frozen, the head included, and all are replaced together."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from retriever_service.dense_index import MakeDenseIndex
from retriever_service.generation import Generation
from retriever_service.generations import Generations, Record
from retriever_service.live_collection import LiveCollection
from retriever_service.snapshot_files import check_files
from serving.deadline import current_deadline
from serving.errors import NotReady


class FollowedCollection(LiveCollection):
    """One open collection of a reader."""

    _has_frozen_head = True

    def __init__(self, directory: Path, make_dense_index: MakeDenseIndex, *, max_wait_seconds: float = 0.0) -> None:
        """Opens the head's files, blocking.

        Args:
            directory: The collection's.
            make_dense_index: The dense index of a generation.
            max_wait_seconds: How long a request waits for a change that has not come here yet.
        """
        super().__init__(directory, make_dense_index)
        self._directory, self._max_wait_seconds = directory, max_wait_seconds
        self._adopted = asyncio.Condition()
        check_files(self.head.directory)

    async def reach(self, index_generation: int, sequence: int) -> None:
        """Waits for the writer's next publications while the head, where it is asked, lacks a change.

        Raises:
            NotReady: When the change does not come in time; the message says how far this replica is.
        """

        def is_here() -> bool:
            record = self.record
            return (index_generation or record.active) != record.head or self.head.applied.sequence >= sequence

        if is_here():
            return
        timeout = current_deadline().timeout()
        wait_seconds = self._max_wait_seconds if timeout is None else min(timeout, self._max_wait_seconds)
        try:
            async with asyncio.timeout(wait_seconds), self._adopted:
                await self._adopted.wait_for(is_here)
        except TimeoutError as error:
            raise NotReady(
                f"min_sequence {sequence} has not come to this read replica of collection {self.settings.name!r} yet: "
                f"it has change {self.head.applied.sequence}; ask again, or ask the writer",
                reason="REPLICA_BEHIND",
            ) from error

    async def adopt(self, record: Record) -> None:
        """Serves other generations, whose directories are there, from now on.

        They are loaded and warm before the swap, which is one assignment; requests under way end on what they began
        with, and then what is not named any more is deleted.
        """
        await self.to_the_end(self._adopt(record))

    async def _adopt(self, record: Record) -> None:
        async with self.changing:
            before, former = self.record, self.head
            is_head_new = record.directories[record.head] != before.directories[before.head]
            head = await self._load(record, record.head) if is_head_new else former
            async with self.opening:
                same = {number for number, name in record.directories.items() if before.directories.get(number) == name}
                opened = {number: one for number, one in self.opened.items() if number in same}
                gone = [one for number, one in self.opened.items() if number not in same]
                if record.active not in (record.head, *opened):
                    opened[record.active] = await self._load(record, record.active)
                await self.commit(record, head=head, opened=opened)
            unnamed = set(before.directories.values()) - set(record.directories.values())
            self.begin(self._forget([*gone, *([former] if is_head_new else [])], unnamed))
        async with self._adopted:
            self._adopted.notify_all()

    async def _load(self, record: Record, number: int) -> Generation:
        directory = Generations.path_in(self._directory, record, number)
        await asyncio.to_thread(check_files, directory)
        generation = await asyncio.to_thread(Generation, directory, self.make_dense_index, is_frozen=True)
        try:
            await generation.start()
            await generation.warm()
        except BaseException:
            await generation.close()
            raise
        return generation

    async def _forget(self, generations: Sequence[Generation], directories: Collection[str]) -> None:
        for generation in generations:
            await generation.close()
        for name in directories:
            await asyncio.to_thread(shutil.rmtree, self.head.directory.parent / name, ignore_errors=True)
