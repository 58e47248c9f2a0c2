"""Sampling from the step distribution: temperature, then top-k, then top-p, as transformers orders them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. The same seed gives the same tokens on the same machine."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None


def sampler(sampling: Sampling) -> Callable[[Tensor], Tensor]:
    """Returns a choice that draws one token per row from the shaped distribution."""
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % 2**63)

    def draw(scores: Tensor) -> Tensor:
        probabilities = torch.softmax(shape(scores, sampling), dim=-1).cpu()
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(scores.device)

    return draw


def shape(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores (R, V) after temperature, top-k and top-p; tokens outside are -inf."""
    scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        smallest_kept = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < smallest_kept, -torch.inf)
    if sampling.top_p < 1.0:
        ascending, order = scores.sort(dim=-1)
        outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - sampling.top_p
        outside[:, -1] = False
        scores = scores.masked_fill(outside.scatter(1, order, outside), -torch.inf)
    return scores
