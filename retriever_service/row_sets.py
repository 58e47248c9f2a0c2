"""Remembers which rows a filter leaves, so that the same filter is not resolved again until something is written."""

from __future__ import annotations

import threading
from collections import OrderedDict

from retriever_service.collection import Rows
from retriever_service.filters import Condition

MAX_BYTES = 16 * 1024 * 1024
_ENTRY_BYTES = 256  # Of an entry besides its rows and parameters; a guess that keeps many empty sets from being free.

_Key = tuple[Condition, int, int]


class RowSets:
    """The rows of recently used filters, by filter, limit and sequence; the least recently used go first.

    Any thread may use it. A set is valid for one sequence: every change of what a filter matches has a new one.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Makes an empty cache that holds at most `max_bytes` of rows."""
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._sets: OrderedDict[_Key, Rows] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return self._num_bytes

    def get(self, condition: Condition, limit: int, sequence: int) -> Rows | None:
        """The set, when it is known for this sequence."""
        key = (condition, limit, sequence)
        with self._lock:
            rows = self._sets.get(key)
            if rows is not None:
                self._sets.move_to_end(key)
            return rows

    def put(self, condition: Condition, limit: int, sequence: int, rows: Rows) -> None:
        """Remembers a set; one larger than the whole cache is not kept."""
        key = (condition, limit, sequence)
        size = _size(key, rows)
        if size > self._max_bytes:
            return
        rows.flags.writeable = False
        with self._lock:
            if key in self._sets:
                return
            self._sets[key] = rows
            self._num_bytes += size
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= _size(*self._sets.popitem(last=False))


def _size(key: _Key, rows: Rows) -> int:
    condition = key[0]
    text = len(condition.sql) + sum(len(str(value)) for value in condition.parameters)
    return rows.nbytes + text + _ENTRY_BYTES
