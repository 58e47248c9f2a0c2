"""Keys and values of decoding: cross-attention's once per encoder row, self-attention's per decoder row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST_CAPACITY_TOKENS = 16


@dataclass(frozen=True, slots=True)
class CrossRun:
    """Neighbouring encoder rows that are read together.

    `layers`: per decoder layer their keys and values (R, H, T, d), views cut to the longest row's `num_tokens`; `mask`
    (R, T) of 0 and -inf, None where all have one length.
    """

    num_rows: int
    num_tokens: int
    layers: Sequence[tuple[Tensor, Tensor]]
    mask: Tensor | None


class CrossKeysValues:
    """Cross-attention keys and values of N encoder rows, padded to the longest; immutable once filled.

    `states` keeps the encoder outputs they were projected from, which is also what identifies them.
    """

    def __init__(self, states: Sequence[Tensor], layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Layers: per decoder layer keys and values, (N, H, T, d) each."""
        self.states = tuple(states)
        self.layers = tuple(layers)
        self.lengths = [len(row) for row in states]

    def runs(self, rows: Sequence[int]) -> list[CrossRun]:
        """The given rows, ascending, as runs of neighbours: what is left of a request is read where it lies."""
        runs = []
        first = 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or rows[end] != rows[end - 1] + 1:
                runs.append(self._run(rows[first], rows[end - 1] + 1))
                first = end
        return runs

    def _run(self, first: int, stop: int) -> CrossRun:
        lengths = self.lengths[first:stop]
        longest = max(lengths)
        part = (slice(first, stop), slice(None), slice(longest))
        layers = [(keys[part], values[part]) for keys, values in self.layers]
        if min(lengths) == longest:
            return CrossRun(len(lengths), longest, layers, None)
        like = self.states[0]
        mask = torch.zeros(len(lengths), longest, dtype=like.dtype, device=like.device)
        for row, length in enumerate(lengths):
            mask[row, length:] = float("-inf")
        return CrossRun(len(lengths), longest, layers, mask)

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
        self.width = width
        self._buffer = torch.empty(_FIRST_CAPACITY_TOKENS, num_layers, 2, num_rows, width, dtype=dtype, device=device)
        self._spare: Tensor | None = None
        self.length = 0

    @property
    def dtype(self) -> torch.dtype:
        """What keys and values are kept in."""
        return self._buffer.dtype

    def reserve(self, num_tokens: int) -> None:
        """Makes room for more tokens in every layer."""
        capacity = len(self._buffer)
        needed = self.length + num_tokens
        if needed <= capacity:
            return
        grown = self._buffer.new_empty(max(needed, 2 * capacity), *self._buffer.shape[1:])
        grown[: self.length] = self._buffer[: self.length]
        self._buffer, self._spare = grown, None

    def append(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the S new tokens of one layer, (S, M, 2, H, d); they count once `length` is raised.

        Returns:
            Keys and values of that layer including them, (length + S, M, H, d) each; views.
        """
        end = self.length + len(keys_values)
        self._buffer[self.length : end, layer] = keys_values.flatten(3).transpose(1, 2)
        seen = torch.unflatten(self._buffer[:end, layer], -1, keys_values.shape[3:])
        return seen[:, 0], seen[:, 1]

    def past(self, num_beams: int) -> Tensor:
        """All that counts, (length, L, 2, K, N, H * d); a view."""
        return torch.unflatten(self._buffer[: self.length], 3, (num_beams, -1))

    def push(self, newest: Tensor) -> None:
        """Appends one token's keys and values in all layers, (L, 2, K, N, H * d)."""
        self.reserve(1)
        self._buffer[self.length] = newest.flatten(2, 3)
        self.length += 1

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what was row rows[i]; rows (M',) int64."""
        shape = (*self._buffer.shape[:3], len(rows), self.width)
        target = self._spare
        if target is None or target.shape != shape:
            target = self._buffer.new_empty(shape)
        if self.length:
            torch.index_select(self._buffer[: self.length], 3, rows, out=target[: self.length])
        same_shape = self._buffer.shape == shape
        self._buffer, self._spare = target, self._buffer if same_shape else None


class LeanState:
    """A decode state: K beams for each of N encoder rows, all at one position.

    `rows` are those N among the ones of `cross`, which keeps all it was opened with; `runs` are the same as runs.
    """

    def __init__(self, cross: CrossKeysValues, own: SelfKeysValues, *, num_beams: int) -> None:
        self.cross = cross
        self.own = own
        self._num_beams = num_beams
        self.rows = tuple(range(len(cross.lengths)))
        self.runs = cross.runs(self.rows)

    @property
    def num_beams(self) -> int:
        """K."""
        return self._num_beams

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def position(self) -> int:
        """Tokens consumed by every decoder row."""
        return self.own.length

    def rewind(self, num_tokens: int) -> None:
        """Forgets the last tokens.

        Raises:
            ValueError: If there are not as many.
        """
        if not 0 <= num_tokens <= self.own.length:
            raise ValueError(f"cannot take back {num_tokens} of {self.own.length} tokens")
        self.own.length -= num_tokens

    def reorder(self, beams: Tensor, rows: Sequence[int] | None) -> None:
        """Takes beams (K', N'): decoder row (k, i) continues row (beams[k, i], rows[i])."""
        kept = range(self.num_rows) if rows is None else rows
        sources = beams * self.num_rows + torch.tensor(kept, device=beams.device)
        self._num_beams = len(beams)
        self.own.reorder(sources.flatten())
        if len(kept) < self.num_rows:
            self.rows = tuple(self.rows[row] for row in kept)
            self.runs = self.cross.runs(self.rows)
