"""The BART family (BART, mBART, PLBART) from a checkpoint: learned positions, biased layers, norms before or after.

Source: Lewis et al. 2019 (arXiv 1910.13461); Liu et al. 2020 (arXiv 2001.08210) for mBART's norms before each sublayer.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from generator_service.models.transformer import (
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    LayerNorm,
    Norm,
    Residual,
    SelfAttention,
    Stack,
    Transformer,
)
from generator_service.models.weights import Weights
from serving.linear import Linear

FAMILIES = frozenset({"bart", "mbart", "plbart"})
# What these families' configs mean where they leave a key out.
DEFAULT_TOKEN_IDS = {
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "decoder_start_token_id": 2,
}
# Tied tables are stored under any one of these names; where several are stored and differ, they are not tied.
_TABLES = ("model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
# The first two rows of the position table are never used.
_POSITION_OFFSET = 2


def build(weights: Weights) -> Transformer:
    """The model of a checkpoint whose config names one of `FAMILIES`.

    Raises:
        ValueError: If a weight is missing, or the width is no multiple of the heads.
    """
    config = weights.checkpoint.config
    head = weights.checkpoint.first(("lm_head.weight", *_TABLES))
    bias = weights.tensor("final_logits_bias")[0] if "final_logits_bias" in weights.checkpoint else None
    reader = _Reader(weights, order="before" if config["model_type"] == "mbart" else "after")
    return Transformer(
        encoder=reader.stack("encoder"),
        encoder_layers=[reader.encoder_layer(number) for number in range(config["encoder_layers"])],
        decoder=reader.stack("decoder"),
        decoder_layers=[reader.decoder_layer(number) for number in range(config["decoder_layers"])],
        head=weights.head(head, bias),
        head_scale=1.0,
        dtype=weights.dtype,
        device=weights.device,
        num_parameters=weights.num_parameters,
    )


class _Embedding:
    """Token plus learned position, normalised."""

    def __init__(self, tokens: Tensor, positions: Tensor, norm: Norm, scale: float) -> None:
        self._tokens, self._positions, self._norm, self._scale = tokens, positions, norm, scale

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = F.embedding(ids, self._tokens)
        if self._scale != 1.0:
            x = x * self._scale
        return self._norm(x + F.embedding(positions, self._positions))


class _Reader:
    """Names of the layers' weights."""

    def __init__(self, weights: Weights, *, order: str) -> None:
        self._weights, self._order = weights, order
        self._config = weights.checkpoint.config

    def stack(self, side: str) -> Stack:
        config, root = self._config, f"model.{side}"
        width, heads = config["d_model"], config[f"{side}_attention_heads"]
        if width % heads:
            raise ValueError(f"d_model {width} is no multiple of {side}_attention_heads {heads}")
        table = self._weights.embedding((f"{root}.embed_tokens.weight", *_TABLES, "lm_head.weight"))
        positions = self._weights.tensor(f"{root}.embed_positions.weight")[_POSITION_OFFSET:]
        scale = math.sqrt(width) if config.get("scale_embedding", False) else 1.0
        return Stack(
            embed=_Embedding(table, positions, self._norm(f"{root}.layernorm_embedding"), scale),
            num_heads=heads,
            scale=(width // heads) ** -0.5,
            bias=None,
            leave=self._norm(f"{root}.layer_norm") if self._order == "before" else None,
        )

    def encoder_layer(self, number: int) -> EncoderLayer:
        root = f"model.encoder.layers.{number}"
        return EncoderLayer(self._self_attention(root), self._feed_forward(root), self._residual(root, "final"))

    def decoder_layer(self, number: int) -> DecoderLayer:
        root = f"model.decoder.layers.{number}"
        cross = CrossAttention(
            q=self._linear(f"{root}.encoder_attn", "q_proj"),
            kv=self._linear(f"{root}.encoder_attn", "k_proj", "v_proj"),
            out=self._linear(f"{root}.encoder_attn", "out_proj"),
            residual=self._residual(root, "encoder_attn"),
        )
        feed_forward, residual = self._feed_forward(root), self._residual(root, "final")
        return DecoderLayer(self._self_attention(root), cross, feed_forward, residual)

    def _self_attention(self, root: str) -> SelfAttention:
        return SelfAttention(
            qkv=self._linear(f"{root}.self_attn", "q_proj", "k_proj", "v_proj"),
            out=self._linear(f"{root}.self_attn", "out_proj"),
            residual=self._residual(root, "self_attn"),
        )

    def _feed_forward(self, root: str) -> FeedForward:
        activation = self._config.get("activation_function", "gelu")
        return FeedForward(self._linear(root, "fc1"), None, self._linear(root, "fc2"), activation)

    def _residual(self, root: str, name: str) -> Residual:
        return Residual(self._norm(f"{root}.{name}_layer_norm"), self._order)

    def _norm(self, root: str) -> LayerNorm:
        return LayerNorm(self._weights.tensor(f"{root}.weight"), self._weights.tensor(f"{root}.bias"))

    def _linear(self, root: str, *names: str) -> Linear:
        weights = [f"{root}.{name}.weight" for name in names]
        return self._weights.linear(weights, biased=[f"{root}.{name}.bias" for name in names])
