"""Dynamic batching: a pure policy, and one owner task that feeds one thread.

There is no waiting for a fuller batch: whatever waits when the thread is free goes next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from serving import errors
from serving.deadline import Deadline, current_deadline

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(slots=True, eq=False)
class Entry(Generic[In, Out]):
    """One item that waits for its output."""

    item: In
    cost: int
    priority: int
    deadline: Deadline
    future: asyncio.Future[Out]
    accepted_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a finished batch looked like, for metrics."""

    num_items: int
    cost: int
    num_skipped: int
    queue_seconds: tuple[float, ...]
    inference_seconds: float


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Which entries go together: by priority (lower first), then earliest deadline, then order of arrival."""

    max_batch_items: int
    max_batch_cost: int

    def take(self, waiting: Sequence[Entry[In, Out]]) -> list[Entry[In, Out]]:
        """The next batch. The first entry always goes, however costly; priorities never mix in one batch."""
        order = sorted(waiting, key=lambda entry: (entry.priority, entry.deadline))
        batch: list[Entry[In, Out]] = []
        cost = 0
        for entry in order:
            full = len(batch) == self.max_batch_items or (batch and cost + entry.cost > self.max_batch_cost)
            if full or (batch and entry.priority != batch[0].priority):
                break
            batch.append(entry)
            cost += entry.cost
        return batch


class Batcher(Generic[In, Out]):
    """Collects items from many callers and runs them together, one batch at a time, in one thread."""

    def __init__(
        self,
        run: Callable[[Sequence[In]], Sequence[Out]],
        policy: BatchPolicy,
        *,
        name: str,
        on_batch: Callable[[Batch], None] | None = None,
    ) -> None:
        """Prepares the batcher; `start` sets it going.

        Args:
            run: Called in the batcher's own thread; returns one output per input, in order.
            policy: What goes together.
            name: Of the thread.
            on_batch: Told of each batch, in the event loop.
        """
        self._run, self._policy, self._name, self._on_batch = run, policy, name, on_batch
        self._waiting: list[Entry[In, Out]] = []
        self._wake = asyncio.Event()
        self._thread: ThreadPoolExecutor | None = None
        self._owner: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the owner task runs."""
        return self._owner is not None and not self._owner.done()

    @property
    def num_waiting(self) -> int:
        """Entries not yet in a batch."""
        return len(self._waiting)

    async def start(self) -> None:
        """Starts thread and owner task."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
        self._owner = asyncio.create_task(self._own(self._thread), name=f"{self._name}-batcher")
        self._owner.add_done_callback(lambda _: self._fail_waiters())

    async def stop(self) -> None:
        """Ends owner and thread; whoever still waits gets NotReady."""
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)

    async def submit(self, item: In, *, cost: int = 1, priority: int = 0) -> Out:
        """Waits for the item's output. Cancelling the caller takes the item out of the queue.

        Args:
            item: What `run` gets.
            cost: Its share of the policy's `max_batch_cost`, e.g. tokens.
            priority: Lower goes first.

        Raises:
            NotReady: When the batcher does not run, or stops before the item is done.
            Deadline: When the current RPC's deadline passes while the item waits.
            Exception: What `run` raised for the item's batch.
        """
        if not self.is_alive:
            raise errors.NotReady(f"{self._name} is not running")
        entry: Entry[In, Out] = Entry(
            item, cost, priority, current_deadline(), asyncio.get_running_loop().create_future()
        )
        self._waiting.append(entry)
        self._wake.set()
        return await entry.future

    async def _own(self, thread: ThreadPoolExecutor) -> None:
        while True:
            await self._wake.wait()
            num_skipped = self._skip_gone_and_late()
            batch = self._policy.take(self._waiting)
            if not batch:
                self._wake.clear()
                continue
            chosen = {id(entry) for entry in batch}
            self._waiting = [entry for entry in self._waiting if id(entry) not in chosen]
            try:
                await self._run_batch(thread, batch, num_skipped)
            finally:
                _fail(batch, errors.NotReady(f"{self._name} stopped"))

    async def _run_batch(self, thread: ThreadPoolExecutor, batch: list[Entry[In, Out]], num_skipped: int) -> None:
        started = time.monotonic()
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(
                thread, self._run, [entry.item for entry in batch]
            )
            if len(outputs) != len(batch):
                raise RuntimeError(f"{self._name} returned {len(outputs)} outputs for {len(batch)} inputs")
        except Exception as error:
            _fail(batch, error)
            return
        for entry, output in zip(batch, outputs, strict=True):
            if not entry.future.done():
                entry.future.set_result(output)
        if self._on_batch:
            queue_seconds = tuple(started - entry.accepted_at for entry in batch)
            cost = sum(entry.cost for entry in batch)
            self._on_batch(Batch(len(batch), cost, num_skipped, queue_seconds, time.monotonic() - started))

    def _skip_gone_and_late(self) -> int:
        before = len(self._waiting)
        for entry in self._waiting:
            if not entry.future.done() and entry.deadline.expired:
                entry.future.set_exception(errors.Deadline("the deadline passed while the request was queued"))
        self._waiting = [entry for entry in self._waiting if not entry.future.done()]
        return before - len(self._waiting)

    def _fail_waiters(self) -> None:
        _fail(self._waiting, errors.NotReady(f"{self._name} stopped"))
        self._waiting = []


def _fail(entries: Sequence[Entry[In, Out]], error: Exception) -> None:
    for entry in entries:
        if not entry.future.done():
            entry.future.set_exception(error)
