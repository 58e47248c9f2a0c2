"""Admission: how much work may be inside a service at once, in items and in tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from serving.errors import InvalidRequest, Overloaded

_SMOOTHING = 0.1  # Weight of the newest request in the drain-rate average.
_MIN_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.05, 30.0


class Permit:
    """Room for one request, given back on exit."""

    def __init__(self, admission: Admission, items: int, tokens: int) -> None:
        self._admission, self._items, self._tokens = admission, items, tokens
        self._since = time.monotonic()

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.release(self._items, self._tokens, seconds=time.monotonic() - self._since)


class Admission:
    """Lets work in while there is room; refuses it at the door otherwise. For one event loop."""

    def __init__(
        self,
        max_items: int,
        max_tokens: int,
        *,
        on_change: Callable[[int, int], None] | None = None,
        on_refuse: Callable[[str], None] | None = None,
    ) -> None:
        """Sets the room.

        Args:
            max_items: Items inside at once.
            max_tokens: Tokens inside at once.
            on_change: Told (items, tokens) inside after each change.
            on_refuse: Told the reason of each refusal.
        """
        self.max_items, self.max_tokens = max_items, max_tokens
        self.items = self.tokens = 0
        self._seconds_per_item = 0.1
        self._on_change, self._on_refuse = on_change, on_refuse

    def admit(self, *, items: int = 1, tokens: int = 0) -> Permit:
        """Takes room for a request; use the permit as a context manager.

        Raises:
            InvalidRequest: When the request alone is more than the whole room.
            Overloaded: When there is no room now; `retry_after_seconds` comes from the measured drain rate.
        """
        if items > self.max_items or tokens > self.max_tokens:
            self._refused("TOO_LARGE")
            raise InvalidRequest(
                f"request of {items} items and {tokens} tokens is over the limit of "
                f"{self.max_items} items and {self.max_tokens} tokens",
                field="request",
                reason="TOO_LARGE",
            )
        if self.items + items > self.max_items or self.tokens + tokens > self.max_tokens:
            self._refused("QUEUE_FULL")
            raise Overloaded(
                f"queue is full: {self.items} of {self.max_items} items, {self.tokens} of {self.max_tokens} tokens",
                retry_after_seconds=self._retry_after(items),
            )
        self.items += items
        self.tokens += tokens
        self._changed()
        return Permit(self, items, tokens)

    def release(self, items: int, tokens: int, *, seconds: float) -> None:
        """Gives room back. Called by `Permit`."""
        # Seconds a request stayed inside, shared among those inside with it: the time between two departures.
        share = seconds / max(1, self.items)
        self._seconds_per_item += _SMOOTHING * (share - self._seconds_per_item)
        self.items -= items
        self.tokens -= tokens
        self._changed()

    def _retry_after(self, items: int) -> float:
        return min(max(items * self._seconds_per_item, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)

    def _changed(self) -> None:
        if self._on_change:
            self._on_change(self.items, self.tokens)

    def _refused(self, reason: str) -> None:
        if self._on_refuse:
            self._on_refuse(reason)
