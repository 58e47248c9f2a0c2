"""A count that grows, on standard error, for people alone."""

import sys
from types import TracebackType
from typing import Self


class Counter:
    """Shows how far something is in one line, where standard error is a terminal."""

    def __init__(self, verb: str) -> None:
        self._verb, self._is_shown = verb, sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, count: int, total: int) -> None:
        """Shows `count` of `total`."""
        if self._is_shown:
            print(f"\r\x1b[K{self._verb} {count:,} of {total:,}", end="", file=sys.stderr, flush=True)
