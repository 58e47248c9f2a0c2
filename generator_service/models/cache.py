"""Keys and values of decoding: cross-attention's once per encoder row, self-attention's per decoder row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_FIRST_CAPACITY_TOKENS = 16


class CrossKeysValues:
    """Cross-attention keys and values of N encoder rows, padded to the longest; immutable once filled.

    `states` keeps the encoder outputs they were projected from, which is also what identifies them.
    """

    def __init__(self, states: Sequence[Tensor], layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Layers: per decoder layer keys and values, (N, H, T, d) each."""
        self.states = tuple(states)
        self.layers = tuple(layers)
        self.lengths = [len(row) for row in states]
        self.mask = self._make_mask()

    def _make_mask(self) -> Tensor | None:
        """(N, T) of 0 and -inf, or None where all rows have one length."""
        longest = max(self.lengths)
        if min(self.lengths) == longest:
            return None
        like = self.states[0]
        mask = torch.zeros(len(self.lengths), longest, dtype=like.dtype, device=like.device)
        for row, length in enumerate(self.lengths):
            mask[row, length:] = float("-inf")
        return mask

    def index(self, states: Tensor) -> int:
        """Which row these encoder states are, by identity."""
        return next(number for number, row in enumerate(self.states) if row is states)

    def of_row(self, layer: int, row: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, H, T_row, d) of one encoder row, without padding; views."""
        keys, values = self.layers[layer]
        length = self.lengths[row]
        return keys[row : row + 1, :, :length], values[row : row + 1, :, :length]


class SelfKeysValues:
    """Self-attention keys and values of M decoder rows that stand at one position.

    The buffer is (capacity, L, 2, M, H * d): time first, so that tokens are appended in place, and a decoder row is one
    contiguous piece, so that reordering all layers is one gather.
    """

    def __init__(self, num_layers: int, num_rows: int, width: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = (num_layers, 2)
        self._width = width
        self._buffer = torch.empty(_FIRST_CAPACITY_TOKENS, *self._shape, num_rows, width, dtype=dtype, device=device)
        self._spare: Tensor | None = None
        self.length = 0

    @property
    def dtype(self) -> torch.dtype:
        """What keys and values are kept in."""
        return self._buffer.dtype

    def reserve(self) -> None:
        """Makes room for one more token in every layer."""
        capacity = len(self._buffer)
        if self.length < capacity:
            return
        grown = self._buffer.new_empty(2 * capacity, *self._buffer.shape[1:])
        grown[:capacity] = self._buffer
        self._buffer, self._spare = grown, None

    def append(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new token of one layer, (M, 2, H, d); the token counts once `length` is raised.

        Returns:
            Keys and values of that layer including it, (length + 1, M, H, d) each; views.
        """
        self._buffer[self.length, layer] = keys_values.flatten(2).transpose(0, 1)
        seen = torch.unflatten(self._buffer[: self.length + 1, layer], -1, keys_values.shape[2:])
        return seen[:, 0], seen[:, 1]

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what was row rows[i]; rows (M',) int64."""
        shape = (*self._buffer.shape[:3], len(rows), self._width)
        target = self._spare
        if target is None or target.shape != shape:
            target = self._buffer.new_empty(shape)
        if self.length:
            torch.index_select(self._buffer[: self.length], 3, rows, out=target[: self.length])
        same_shape = self._buffer.shape == shape
        self._buffer, self._spare = target, self._buffer if same_shape else None


class LeanState:
    """A decode state: K beams for each of N encoder rows, all at one position."""

    def __init__(self, cross: CrossKeysValues, own: SelfKeysValues, *, num_beams: int) -> None:
        self.cross = cross
        self.own = own
        self._num_beams = num_beams

    @property
    def num_beams(self) -> int:
        """K."""
        return self._num_beams

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.cross.lengths)

    @property
    def position(self) -> int:
        """Tokens consumed by every decoder row."""
        return self.own.length

    def reorder(self, beams: Tensor) -> None:
        """Takes beams (K', N): decoder row (k, n) continues row (beams[k, n], n)."""
        rows = beams * self.num_rows + torch.arange(self.num_rows, device=beams.device)
        self._num_beams = len(beams)
        self.own.reorder(rows.flatten())
