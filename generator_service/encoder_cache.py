"""Encoder outputs that may be wanted again: bounded in bytes, the least recently used forgotten first.

One owner: the model's thread. The key is a row's token ids, which hold question and passage, and the weights' digest:
an encoder reads both texts together, so a passage alone does not determine its states.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from generator_service.models.base import EncodedRow

Key = bytes


class EncoderCache:
    """Encoder rows by key. `num_bytes` are held now, `num_evictions` counts since creation."""

    def __init__(self, max_bytes: int, model_digest: str) -> None:
        """Without room, `max_bytes` 0, it stays empty."""
        self._max_bytes = max_bytes
        self._hash = hashlib.blake2b(model_digest.encode(), digest_size=32)
        self._rows: OrderedDict[Key, EncodedRow] = OrderedDict()
        self.num_bytes = 0
        self.num_evictions = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: Key) -> bool:
        """Whether the row is here; no use of it."""
        return key in self._rows

    def key(self, token_ids: Sequence[int]) -> Key:
        """What identifies a row."""
        found = self._hash.copy()
        found.update(array("q", token_ids).tobytes())
        return found.digest()

    def get(self, key: Key) -> EncodedRow | None:
        """The row, which is now the most recently used, or None."""
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def put(self, key: Key, row: EncodedRow) -> None:
        """Keeps a row that is not here yet, in memory of its own; one larger than the whole cache is not kept."""
        size = row.states.nbytes
        if size > self._max_bytes:
            return
        while self.num_bytes + size > self._max_bytes:
            _, oldest = self._rows.popitem(last=False)
            self.num_bytes -= oldest.states.nbytes
            self.num_evictions += 1
        if row.states.untyped_storage().nbytes() != size:  # A view would keep its whole batch alive.
            row = EncodedRow(row.states.clone())
        self._rows[key] = row
        self.num_bytes += size
