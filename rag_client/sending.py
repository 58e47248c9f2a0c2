"""A request on its way: what the caller's own iterator raises while it is sent must reach the caller."""

from collections.abc import Iterator
from typing import Any, Self


class Sending:
    """A request as gRPC takes it: one message, or an iterator of messages.

    gRPC reads the iterator elsewhere and turns its error into a bare status; `failure` keeps the error itself.
    """

    __slots__ = ("failure", "request")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.failure: Exception | None = None

    @classmethod
    def of(cls, request: Any) -> Self:
        """Wraps an iterator; a single message stays as it is."""
        sending = cls(request)
        if isinstance(request, Iterator):
            sending.request = sending._watched(request)
        return sending

    def _watched(self, messages: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from messages
        except Exception as error:
            self.failure = error
            raise
