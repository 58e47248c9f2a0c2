"""The engine: one thread that owns the model and runs every request's program on it, round by round (see `rounds`).

Callers live in an event loop and get their result, or their error, exactly once. A caller that goes away frees its rows
at the next round.
"""

import asyncio
import threading
import time
from collections import deque

import torch

from generator_service.decoding.program import Program
from generator_service.entry import Entry, Finished, OnTokens, Result
from generator_service.models.base import Seq2SeqModel
from generator_service.rounds import EngineObserver, Rounds
from generator_service.scheduler import Budget
from serving.errors import NotReady
from serving.logs import get_logger

log = get_logger(__name__)


class Engine:
    """Runs programs on a model. Create, `start`, `run` from any event loop, `stop`."""

    def __init__(
        self, model: Seq2SeqModel, budget: Budget, observer: EngineObserver, *, encoder_cache_bytes: int = 0
    ) -> None:
        self._rounds = Rounds(model, budget, observer, encoder_cache_bytes=encoder_cache_bytes)
        self._changed = threading.Condition()
        self._arrived: deque[Entry] = deque()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._own, name="model", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._thread.is_alive() and not self._is_stopping

    @property
    def last_success_at(self) -> float:
        """The moment (monotonic clock) when the model last worked."""
        return self._rounds.last_success_at

    def start(self) -> None:
        """Starts the model's thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after its present round; whoever still waits gets NotReady."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def run(
        self, program: Program[Result], *, deadline_at: float, on_tokens: OnTokens | None = None
    ) -> Finished[Result]:
        """Runs a program to its end. Cancelling the caller frees its rows at the next round.

        Args:
            program: Not started yet.
            deadline_at: Moment of the monotonic clock after which the answer is of no use; infinity is never.
            on_tokens: Called in the caller's loop with tokens that are certain, as they come.

        Raises:
            NotReady: The engine does not run, or stops before the program has ended.
            Deadline: The deadline passed, or could not be met even without others.
            Overloaded: The requests ahead leave no time before the deadline.
            Exception: What the model or the program raised.
        """
        entry = Entry(
            num_decoder_rows=program.num_decoder_rows,
            deadline_at=deadline_at,
            program=program,
            future=asyncio.get_running_loop().create_future(),
            on_tokens=on_tokens,
            accepted_at=time.monotonic(),
        )
        with self._changed:
            if not self.is_alive:
                raise NotReady("the generator's engine does not run")
            self._arrived.append(entry)
            self._changed.notify()
        try:
            return await entry.future
        finally:
            entry.is_cancelled = not entry.future.done() or entry.future.cancelled()

    def _own(self) -> None:
        """The thread: rounds until told to stop. Whatever ends it answers everyone."""
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    while self._arrived:
                        self._rounds.receive(self._arrived[0])
                        self._arrived.popleft()  # Not before it is queued: whatever happens, it is answered.
                    self._rounds.run_one()
        except BaseException:
            log.exception("the model's thread died")
            raise
        finally:
            with self._changed:
                self._is_stopping = True
                entries = [*self._rounds.clear(), *self._arrived]
                self._arrived.clear()
            for entry in entries:
                entry.deliver(NotReady("the generator's engine stopped"))

    def _wait_for_work(self) -> bool:
        """Sleeps while there is nothing to do; False when told to stop."""
        with self._changed:
            while self._rounds.is_idle and not self._arrived and not self._is_stopping:
                self._changed.wait()
            return not self._is_stopping
