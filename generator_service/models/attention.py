"""Attention of decode steps, over keys and values that are kept. Knows shapes, not models.

Shape letters: S tokens of a step, M decoder rows, N encoder rows, K beams, H heads, d head width, T keys.

Two batched products: torch's fused kernel (SDPA) with one query row is up to seven times slower on CPU in bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serving.attention import scaled_product


def step_self_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """The newest tokens of each decoder row over what the row has seen, themselves included.

    Args:
        q: (S, M, H, d), S tokens of each row, the newest of T last.
        keys: (T, M, H, d), time first, so that a row grows without moving the others.
        values: (T, M, H, d).
        bias: (1 or H, S, T) added to the scores, -inf where a token must not look; None for S = 1 without a bias.
        scale: Factor of the scores.

    Returns:
        (S, M, H, d), not contiguous where S > 1.
    """
    count, rows, heads, width = q.shape
    queries = q.permute(1, 2, 0, 3).reshape(rows * heads, count, width)
    scores = scaled_product(queries, keys.flatten(1, 2).permute(1, 2, 0), scale)
    if bias is not None:
        scores.view(rows, heads, count, -1).add_(bias)
    out = torch.bmm(torch.softmax(scores, -1), values.flatten(1, 2).transpose(0, 1))
    return out.view(rows, heads, count, width).permute(2, 0, 1, 3)


def step_cross_attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The K beams of an encoder row are K queries over one copy of its keys and values.

    Args:
        q: (K, N, H, d).
        keys: (N, H, T, d).
        values: (N, H, T, d).
        mask: (N, T) added to the scores, 0 or -inf, where rows differ in length; else None.
        scale: Factor of the scores.

    Returns:
        (K, N, H, d), not contiguous where K > 1.
    """
    beams, rows, heads, width = q.shape
    queries = q.permute(1, 2, 0, 3).reshape(rows * heads, beams, width)
    scores = scaled_product(queries, keys.flatten(0, 1).transpose(1, 2), scale)
    if mask is not None:
        scores.view(rows, heads * beams, -1).add_(mask[:, None])
    out = torch.bmm(torch.softmax(scores, -1), values.flatten(0, 1))
    return out.view(rows, heads, beams, width).permute(2, 0, 1, 3)
