"""The BERT family's own code: BERT, RoBERTa, XLM-RoBERTa, MPNet and both halves of DPR. Knows token ids, not texts.

Rows are packed side by side, so that linear layers never see padding.
Weights are taken over from a model that transformers has loaded, whatever file format and names they were stored under.
The residual stream and its norms are float32 whatever the weights are: it costs next to nothing and keeps bfloat16
vectors three times closer to the exact ones.

Source: Devlin et al. 2019 (arXiv 1810.04805); Song et al. 2020 (arXiv 2004.09297) for MPNet's relative positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retriever_service.scripted import layers_program
from serving.attention import EqualLengthAttention, packed_attention, runs
from serving.errors import Unimplemented
from serving.linear import (
    ACTIVATIONS,
    Backend,
    Linear,
    PackedLinear,
    choose_backend,
    make_linear,
    post_op,
    rounded_rows,
)

# Positions of these families start after the padding token's own row of the table.
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
FAMILIES = _POSITIONS_AFTER_PADDING | {"bert", "dpr"}


class Bert:
    """Encoder states of packed rows."""

    def __init__(self, model: Any, *, dtype: torch.dtype, device: torch.device, backend: Backend | None = None) -> None:
        """Takes over a model's weights; the model may be dropped afterwards.

        Args:
            model: A transformers model of one of `FAMILIES`, float32; of DPR, its BERT; or what has its attributes.
            dtype: Of the linear layers: float32 or bfloat16.
            device: A torch device.
            backend: How linear layers run; None takes what this machine runs best.

        Raises:
            Unimplemented: If the model is of another kind.
        """
        config = model.config
        check(config)
        backend = backend or choose_backend(dtype, device.type)

        def tensor(parameter: Tensor) -> Tensor:
            return parameter.detach().to(device)

        def linear(*layers: nn.Linear) -> Linear:
            weight = torch.cat([layer.weight.detach() for layer in layers])
            bias = torch.cat([layer.bias.detach() for layer in layers])
            return make_linear(weight.to(device, dtype), bias.to(device, dtype), backend)

        def norm(layer: nn.LayerNorm) -> _Norm:
            return _Norm(tensor(layer.weight), tensor(layer.bias), config.layer_norm_eps)

        entry = model.embeddings
        first = config.pad_token_id + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0
        self._words = tensor(entry.word_embeddings.weight)
        self._positions = tensor(entry.position_embeddings.weight)[first:]
        self._types: Tensor | None = None
        if hasattr(entry, "token_type_embeddings"):
            # Nearly every token is of segment 0: it is a part of the positions, the others are what they add to it.
            types = tensor(entry.token_type_embeddings.weight)
            self._positions, self._types = self._positions + types[0], types - types[0]
        self._norm = norm(entry.LayerNorm)
        self._bias = _position_bias(model.encoder, len(self._positions), device)
        self._num_heads, self._dtype, self.device = config.num_attention_heads, dtype, device
        self._layers = [_layer(layer, config.hidden_act, linear, norm) for layer in model.encoder.layer]
        self._weights = [layer.packed_weights() for layer in self._layers] if backend == "packed" else []

    def __call__(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> tuple[Tensor, Rows]:
        """Encodes rows.

        Args:
            ids: Token ids of each row; no row is empty.
            types: Segment of each token, 0 or 1; None where all are 0.

        Returns:
            (S, D) float32, and where each row lies in it.
        """
        rows = Rows([len(row) for row in ids], self.device)
        x = F.embedding(rows.pack(ids), self._words) + F.embedding(rows.positions, self._positions)
        if self._types is not None and types is not None and any(map(any, types)):
            x += F.embedding(rows.pack(types), self._types)
        x = self._norm(x)
        attend = packed_attention(rows.lengths, self.device)
        if self._weights and isinstance(attend, EqualLengthAttention):
            activation, epsilon = post_op(self._layers[0].activation), self._norm.epsilon
            run, own_runs = layers_program(), attend.runs
            return run(x, own_runs, self._weights, self._bias, self._num_heads, activation, epsilon), rows
        for layer in self._layers:
            qkv = torch.unflatten(layer.qkv(x.to(self._dtype)), 1, (3, self._num_heads, -1))
            x = layer.attention_norm(layer.out(attend(qkv, self._bias, qkv.shape[-1] ** -0.5), residual=x))
            hidden = layer.inner(x.to(self._dtype), activation=layer.activation)
            x = layer.norm(layer.outer(hidden, residual=x))
        return x, rows


class Rows:
    """How N rows lie in S packed tokens: side by side, then filling that no row sees.

    Attributes:
        lengths: Of the rows, in tokens.
        num_tokens: Of all rows together.
        num_packed: S.
        positions: (S,) each token's place in its row.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = list(lengths)
        self.num_tokens = sum(lengths)
        self.num_packed = rounded_rows(self.num_tokens)
        self._device = device
        self.positions = self.pack([range(length) for length in lengths])

    def pack(self, values: Sequence[Sequence[int]]) -> Tensor:
        """A number per token (S,), zero for filling."""
        filling = [0] * (self.num_packed - self.num_tokens)
        return torch.tensor([*itertools.chain.from_iterable(values), *filling], device=self._device)

    def first(self, x: Tensor) -> Tensor:
        """Each row's first token: (S, D) -> (N, D)."""
        starts = list(itertools.accumulate(self.lengths[:-1], initial=0))
        return x[torch.tensor(starts, device=self._device)]

    def mean(self, x: Tensor) -> Tensor:
        """(S, D) -> (N, D)."""
        parts = [x[at : at + count * size].view(count, size, -1).mean(1) for at, count, size in runs(self.lengths)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    out: Linear
    attention_norm: _Norm
    inner: Linear
    outer: Linear
    norm: _Norm
    activation: str

    def packed_weights(self) -> list[Tensor]:
        """What `run_layers` takes of a layer."""
        parts = (self.qkv, self.out, self.attention_norm, self.inner, self.outer, self.norm)
        pairs = [part.tensors for part in parts if isinstance(part, PackedLinear | _Norm)]
        return [tensor for pair in pairs for tensor in pair if tensor is not None]


def check(config: Any) -> None:
    """Refuses what this code would compute wrongly.

    Raises:
        Unimplemented: Naming it.
    """
    if config.model_type not in FAMILIES:
        raise Unimplemented(f"model_type {config.model_type!r}: only {', '.join(sorted(FAMILIES))} have own code")
    if config.hidden_act not in ACTIVATIONS:
        raise Unimplemented(f"activation {config.hidden_act!r}: only {', '.join(sorted(ACTIVATIONS))} are possible")
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise Unimplemented(f"position_embedding_type {config.position_embedding_type!r}: only 'absolute' is possible")
    if getattr(config, "is_decoder", False):
        raise Unimplemented("is_decoder: only encoders are possible")


def _layer(layer: Any, activation: str, linear: Callable[..., Linear], norm: Callable[[Any], _Norm]) -> _Layer:
    attention = layer.attention
    if hasattr(attention, "attn"):  # MPNet's names.
        projections, out = (attention.attn.q, attention.attn.k, attention.attn.v), attention.attn.o
    else:
        projections, out = (attention.self.query, attention.self.key, attention.self.value), attention.output.dense
    return _Layer(
        qkv=linear(*projections),
        out=linear(out),
        attention_norm=norm(attention.LayerNorm if hasattr(attention, "attn") else attention.output.LayerNorm),
        inner=linear(layer.intermediate.dense),
        outer=linear(layer.output.dense),
        norm=norm(layer.output.LayerNorm),
        activation=activation,
    )


def _position_bias(encoder: Any, length: int, device: torch.device) -> Tensor | None:
    """(H, length, length) added to attention scores (MPNet); None for the others."""
    if not hasattr(encoder, "compute_position_bias"):
        return None
    bias: Tensor = encoder.compute_position_bias(torch.empty(1, length, 1))
    return bias[0].detach().to(device)
