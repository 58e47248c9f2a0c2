"""The three losses of generator training, as pure functions of tensors.

The language-model loss is the goal. The other two point the model at the answer's place in the passage and only make
it learn sooner: plain language modelling was at exact match 3 after 240 steps where the three together were past 10.
"""

import torch
from torch.nn import functional

_SMALLEST_MASS = 1e-5


def language_model_loss(logits: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood over real target tokens, in float32.

    Args:
        logits: (N, V) at N target positions.
        target_ids: int64 (N,), -100 where there is no target.
    """
    return functional.cross_entropy(logits.float(), target_ids)


def span_loss(scores: torch.Tensor, attention_mask: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answer's first and last token, averaged over both; negatives point at position 0.

    Args:
        scores: (B, S, 2) start and end scores of a linear head on the encoder's states.
        attention_mask: (B, S), 0 where padded.
        spans: int64 (B, 2).
    """
    masked = scores.float().masked_fill(attention_mask.unsqueeze(-1) == 0, -1e4)
    starts, ends = masked[..., 0], masked[..., 1]
    return (functional.cross_entropy(starts, spans[:, 0]) + functional.cross_entropy(ends, spans[:, 1])) / 2


def guidance_loss(weights: torch.Tensor, gold_positions: torch.Tensor) -> torch.Tensor:
    """Mean of -log of the cross-attention mass on the token to copy; 0 when the batch copies nothing.

    Args:
        weights: (B, H, T, S) cross-attention of the guided heads, averaged over H here.
        gold_positions: int64 (B, T), -1 where nothing is copied.
    """
    copies = gold_positions >= 0
    mass = weights.float().mean(dim=1).gather(-1, gold_positions.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    lost = -torch.log(mass + _SMALLEST_MASS) * copies
    return lost.sum() / copies.sum().clamp(min=1)
