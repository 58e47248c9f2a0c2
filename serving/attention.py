"""Self-attention inside the rows of a packed batch, and attention with many queries at once. Knows shapes, not models.

Shape letters: S packed tokens, N rows, H heads, d head width, Q queries, T keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedAttention(Protocol):
    """Self-attention inside each row; rows lie side by side without padding, filling may follow the last."""

    @property
    def num_padded_tokens(self) -> int:
        """Tokens computed for padding only, per layer."""
        ...

    def __call__(self, qkv: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """Takes qkv (S, 3, H, d) and bias (H, T, T) for the longest row or more; returns (S, H * d), 0 for filling."""
        ...


class EqualLengthAttention:
    """One kernel call per run of rows of one length: no padding and no mask. For CPU, where calls are cheap."""

    num_padded_tokens = 0

    def __init__(self, lengths: Sequence[int]) -> None:
        self.runs = list(runs(lengths))

    def __call__(self, qkv: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `PackedAttention`."""
        return attend_in_runs(qkv, self.runs, bias, scale)


class PaddedAttention:
    """One kernel call for all rows, padded to the longest inside attention only. For GPU, where calls are dear."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        longest = max(lengths)
        self.num_padded_tokens = longest * len(lengths) - sum(lengths)
        steps, sizes = torch.arange(longest, device=device), torch.tensor(lengths, device=device)[:, None]
        self._is_token = steps < sizes
        self._places = torch.where(self._is_token, sizes.cumsum(0) - sizes + steps, 0)
        self._num_tokens = sum(lengths)

    def __call__(self, qkv: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `PackedAttention`."""
        q, k, v = qkv[self._places].permute(2, 0, 3, 1, 4)
        mask: Tensor | None = None
        if self.num_padded_tokens:
            mask = self._is_token[:, None, None, :]
        if bias is not None:
            longest = self._is_token.shape[1]
            whole = bias[None, :, :longest, :longest].to(qkv.dtype)
            mask = whole if mask is None else whole.masked_fill(~mask, float("-inf"))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return F.pad(out.transpose(1, 2).flatten(2)[self._is_token], (0, 0, 0, len(qkv) - self._num_tokens))


def packed_attention(lengths: Sequence[int], device: torch.device) -> PackedAttention:
    """The kind that suits the device; rows of equal length had better lie together."""
    return EqualLengthAttention(lengths) if device.type == "cpu" else PaddedAttention(lengths, device)


def runs(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """First token, number of rows and length of each run of equally long rows that lie side by side."""
    start = 0
    for length, group in itertools.groupby(lengths):
        count = len(list(group))
        yield start, count, length
        start += count * length


def attend_in_runs(qkv: Tensor, runs: list[tuple[int, int, int]], bias: Tensor | None, scale: float) -> Tensor:
    """`EqualLengthAttention` as a function, which TorchScript understands; `runs` as of `runs`."""
    num_tokens, outputs = 0, torch.jit.annotate(list[Tensor], [])  # type: ignore[no-untyped-call]
    for start, count, length in runs:
        num_tokens = start + count * length
        # Widened here if at all: one contiguous copy instead of three strided ones in `full_attention`.
        own = qkv[start:num_tokens].float() if not _suit_products(length) else qkv[start:num_tokens]
        qkv_of_rows = torch.unflatten(own, 0, (count, length)).permute(2, 0, 3, 1, 4)
        mask = None if bias is None else bias[:, :length, :length]
        if mask is not None and own.dtype == torch.float32:
            mask = mask.float()
        attended = full_attention(qkv_of_rows[0], qkv_of_rows[1], qkv_of_rows[2], mask, scale)
        outputs.append(attended.transpose(1, 2).reshape(count * length, -1).to(qkv.dtype))
    if len(qkv) > num_tokens:
        outputs.append(torch.zeros_like(qkv[num_tokens:, 0].flatten(1)))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def full_attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Many queries at once.

    Args:
        q: (N, H, Q, d).
        keys: (N, H, T, d).
        values: (N, H, T, d).
        mask: (1 or H, Q, T), the same for every row: bool, True where a query sees a key, or added to the scores.
        scale: Factor of the scores.

    Returns:
        (N, H, Q, d).
    """
    is_slow, dtype = q.device.type == "cpu" and q.dtype != torch.float32, q.dtype
    if is_slow and _suit_products(keys.shape[2]):
        return torch.stack([_row_by_products(q[i], keys[i], values[i], mask, scale) for i in range(len(q))])
    # A mask of three dimensions would leave the fused kernel.
    whole = None if mask is None else mask[None]
    if not is_slow:
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=whole, scale=scale)
    if whole is not None and whole.dtype != torch.bool:
        whole = whole.float()
    wide = F.scaled_dot_product_attention(q.float(), keys.float(), values.float(), attn_mask=whole, scale=scale)
    return wide.to(dtype)


def _suit_products(num_keys: int) -> bool:
    """In 16 bits on CPU the fused kernel is slow: float32's is faster for few keys, two products for many (Zen 5)."""
    return num_keys >= 64


def _row_by_products(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """One row of `full_attention`: 1.4 to 1.9 times as fast as SDPA on CPU in bfloat16 (Zen 5)."""
    scores = scaled_product(q.contiguous(), keys.contiguous().transpose(1, 2), scale)
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    elif mask is not None:
        scores += mask
    return torch.bmm(torch.softmax(scores, -1), values.contiguous())


def scaled_product(q: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Of q (B, Q, d), keys (B, d, T) and scale: (B, Q, T)."""
    if scale == 1.0:
        return torch.bmm(q, keys)
    return torch.baddbmm(q.new_empty(()), q, keys, beta=0, alpha=scale)
