"""The encoder-decoder transformer that the BART and T5 families share. Knows layers, not requests, rows or caches.

A family file fills `Transformer` from a checkpoint; what differs between families (norms before or after, learned or
relative positions, gated feed-forward) is data here. All activations are packed: (S, D), one row per token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from serving.errors import Unimplemented
from serving.linear import ACTIVATIONS, Linear

Norm = Callable[[Tensor], Tensor]
Attend = Callable[[int, Tensor], Tensor]
"""Layer number and its projections (S, 3 or 1, H, d) -> attended values (S, H * d)."""


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Mean and variance normalisation (BART)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(S, D) -> (S, D)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


@dataclass(frozen=True, slots=True)
class RootMeanSquareNorm:
    """Scale normalisation without mean or shift, in float32 (T5). Source: Zhang & Sennrich 2019, equation 4."""

    weight: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """(S, D) in the residual's dtype -> (S, D) in the weight's dtype."""
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (wide * inverse).to(self.weight.dtype)


class Sublayer(Protocol):
    """f(y) + residual."""

    def __call__(self, y: Tensor, residual: Tensor) -> Tensor:
        """Both (S, D)."""
        ...


@dataclass(frozen=True, slots=True)
class Residual:
    """The sum around a sublayer, normalised before it (T5, mBART) or after it (BART)."""

    norm: Norm
    order: str  # "before" or "after"

    def __call__(self, x: Tensor, sublayer: Sublayer) -> Tensor:
        """Both (S, D)."""
        if self.order == "before":
            return sublayer(self.norm(x), x)
        return self.norm(sublayer(x, x))


@dataclass(frozen=True, slots=True)
class FeedForward:
    """outer(activation(inner x)), or outer(activation(inner x) * gate x)."""

    inner: Linear
    gate: Linear | None
    outer: Linear
    activation: str

    def __post_init__(self) -> None:
        """Refuses at loading what would fail at the first row.

        Raises:
            Unimplemented: If the activation is not known here.
        """
        if self.activation not in ACTIVATIONS:
            raise Unimplemented(f"activation {self.activation!r}: only {', '.join(sorted(ACTIVATIONS))} are possible")

    def __call__(self, y: Tensor, residual: Tensor) -> Tensor:
        """See `Sublayer`."""
        hidden = self.inner(y, activation=self.activation)
        if self.gate is not None:
            hidden = hidden * self.gate(y)
        return self.outer(hidden, residual=residual)


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """Self-attention's projections; `qkv` gives queries, keys and values in one product."""

    qkv: Linear
    out: Linear
    residual: Residual


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """Cross-attention's projections; `kv` is applied to encoder states, once per encoder row."""

    q: Linear
    kv: Linear
    out: Linear
    residual: Residual


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    """Self-attention and feed-forward."""

    attention: SelfAttention
    feed_forward: FeedForward
    feed_forward_residual: Residual


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Self-attention, cross-attention and feed-forward."""

    attention: SelfAttention
    cross: CrossAttention
    feed_forward: FeedForward
    feed_forward_residual: Residual


class RelativeBias:
    """What a head adds to a score for the distance between key and query (T5); shared by the layers of a stack."""

    def __init__(self, weight: Tensor, buckets: Callable[[Tensor], Tensor]) -> None:
        """Weight: (buckets, H); `buckets`: distances key - query, int64 -> bucket numbers, same shape."""
        self._weight, self._buckets = weight, buckets
        self._past = weight.new_empty(weight.shape[1], 0)

    def at(self, distances: Tensor) -> Tensor:
        """Distances key - query, int64 of any shape (...) -> (H, ...)."""
        return F.embedding(self._buckets(distances), self._weight).movedim(-1, 0).contiguous()

    def past(self, length: int) -> Tensor:
        """(H, length): the newest token's bias for each token up to itself. A view of a table kept for all steps."""
        if self._past.shape[1] < length:
            size = max(64, 2 * length)
            self._past = self.at(torch.arange(1 - size, 1, device=self._weight.device))
        return self._past[:, self._past.shape[1] - length :]


@dataclass(frozen=True, slots=True)
class Stack:
    """What encoder and decoder have in common: how tokens enter, positions count and states leave."""

    embed: Callable[[Tensor, Tensor], Tensor]  # ids (S,), positions (S,) -> (S, D)
    num_heads: int
    scale: float  # of attention scores
    bias: RelativeBias | None
    leave: Norm | None  # the norm after the last layer


@dataclass(frozen=True, slots=True)
class Transformer:
    """All weights of one model and the two passes over its layers."""

    encoder: Stack
    encoder_layers: list[EncoderLayer]
    decoder: Stack
    decoder_layers: list[DecoderLayer]
    head: Linear
    head_scale: float
    dtype: torch.dtype
    device: torch.device
    num_parameters: int

    def encode(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Encoder states: ids and positions (S,) int64 -> (S, D)."""
        x = self.encoder.embed(ids, positions)
        for number, layer in enumerate(self.encoder_layers):
            x = _self_attention(layer.attention, self.encoder, number, x, attend)
            x = layer.feed_forward_residual(x, layer.feed_forward)
        return x if self.encoder.leave is None else self.encoder.leave(x)

    def decode(self, ids: Tensor, positions: Tensor, attend_self: Attend, attend_cross: Attend) -> Tensor:
        """Decoder states ready for `logits`: ids and positions (S,) int64 -> (S, D)."""
        x = self.decoder.embed(ids, positions)
        for number, layer in enumerate(self.decoder_layers):
            x = _self_attention(layer.attention, self.decoder, number, x, attend_self)
            x = _cross_attention(layer.cross, self.decoder, number, x, attend_cross)
            x = layer.feed_forward_residual(x, layer.feed_forward)
        x = x if self.decoder.leave is None else self.decoder.leave(x)
        return x if self.head_scale == 1.0 else x * self.head_scale

    def logits(self, states: Tensor) -> Tensor:
        """(S, D) from `decode` -> (S, V)."""
        return self.head(states)

    def cross_keys_values(self, layer: int, states: Tensor) -> Tensor:
        """Encoder states (S, D) -> keys and values of one decoder layer (S, 2, H, d)."""
        return torch.unflatten(self.decoder_layers[layer].cross.kv(states), 1, (2, self.decoder.num_heads, -1))


def _self_attention(weights: SelfAttention, stack: Stack, number: int, x: Tensor, attend: Attend) -> Tensor:
    def sublayer(y: Tensor, residual: Tensor) -> Tensor:
        qkv = torch.unflatten(weights.qkv(y), 1, (3, stack.num_heads, -1))
        return weights.out(attend(number, qkv), residual=residual)

    return weights.residual(x, sublayer)


def _cross_attention(weights: CrossAttention, stack: Stack, number: int, x: Tensor, attend: Attend) -> Tensor:
    def sublayer(y: Tensor, residual: Tensor) -> Tensor:
        q = torch.unflatten(weights.q(y), 1, (stack.num_heads, -1))
        return weights.out(attend(number, q), residual=residual)

    return weights.residual(x, sublayer)
