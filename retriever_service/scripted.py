"""The layers of BERT on packed weights as one TorchScript program: 8 % of a short query is Python between its products.

torch calls TorchScript deprecated; where it is gone, the same text runs as Python.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from serving.attention import attend_in_runs
from serving.linear import packed_product


def run_layers(
    x: Tensor,
    runs: list[tuple[int, int, int]],
    weights: list[list[Tensor]],
    position_bias: Tensor | None,
    num_heads: int,
    activation: tuple[str, str],
    epsilon: float,
) -> Tensor:
    """Runs all layers, in words that TorchScript understands.

    Args:
        x: (S, D) float32, the embedded tokens.
        runs: Of `serving.attention.runs`.
        weights: Of each layer, weight and bias of: the product to queries, keys and values, that out of attention, its
            norm, the products into and out of the hidden layer, its norm.
        position_bias: (H, T, T) added to attention scores, or None.
        num_heads: H.
        activation: Of `post_op`.
        epsilon: Of the norms.

    Returns:
        (S, D) float32.
    """
    size, dtype = x.shape[1], weights[0][0].dtype
    scale = (size // num_heads) ** -0.5
    for layer in weights:
        qkv = torch.unflatten(packed_product(x.to(dtype), layer[0], layer[1], ("none", "")), 1, (3, num_heads, -1))
        attended = attend_in_runs(qkv, runs, position_bias, scale)
        x = x + packed_product(attended, layer[2], layer[3], ("none", ""))
        x = torch.layer_norm(x, [size], layer[4], layer[5], epsilon)
        hidden = packed_product(x.to(dtype), layer[6], layer[7], activation)
        x = x + packed_product(hidden, layer[8], layer[9], ("none", ""))
        x = torch.layer_norm(x, [size], layer[10], layer[11], epsilon)
    return x


@functools.cache
def layers_program() -> Callable[..., Tensor]:
    """`run_layers`, compiled where torch can; 8 ms at the first call."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            program = torch.jit.script(run_layers)
    except (AttributeError, OSError, RuntimeError):
        return run_layers

    def run(*arguments: object) -> Tensor:
        # Its optimiser finds nothing to do here, but takes 40 ms for two calls.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # Not in its __all__.
            states: Tensor = program(*arguments)
            return states

    return run
