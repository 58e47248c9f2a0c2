"""The T5 family (T5, flan-T5, T5 v1.1, mT5) from a checkpoint: relative positions, no biases, norms before sublayers.

Source: Raffel et al. 2020 (arXiv 1910.10683); buckets as in its Mesh TensorFlow code.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from generator_service.models.transformer import (
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    RelativeBias,
    Residual,
    RootMeanSquareNorm,
    SelfAttention,
    Stack,
    Transformer,
)
from generator_service.models.weights import Weights

FAMILIES = frozenset({"t5", "mt5"})
# What these families' configs mean where they leave a key out.
DEFAULT_TOKEN_IDS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
# Tied tables are stored under any one of these names; where several are stored and differ, they are not tied.
_TABLES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def build(weights: Weights) -> Transformer:
    """The model of a checkpoint whose config names one of `FAMILIES`.

    Raises:
        ValueError: If a weight is missing.
    """
    config, checkpoint = weights.checkpoint.config, weights.checkpoint
    head = checkpoint.first(("lm_head.weight", *_TABLES))
    # T5 scales its output by d_model**-0.5, T5 v1.1 and flan-T5 do not; checkpoints saved before transformers 5 say it
    # by their tied embeddings alone.
    is_scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
    reader = _Reader(weights)
    num_decoder_layers = config.get("num_decoder_layers") or config["num_layers"]
    return Transformer(
        encoder=reader.stack("encoder"),
        encoder_layers=[reader.encoder_layer(number) for number in range(config["num_layers"])],
        decoder=reader.stack("decoder"),
        decoder_layers=[reader.decoder_layer(number) for number in range(num_decoder_layers)],
        head=weights.head(head, None),
        head_scale=config["d_model"] ** -0.5 if is_scaled else 1.0,
        dtype=weights.dtype,
        device=weights.device,
        num_parameters=weights.num_parameters,
    )


def relative_buckets(distances: Tensor, *, is_two_way: bool, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket numbers of distances key - query: exact when near, logarithmic up to `max_distance`, one beyond.

    Args:
        distances: int64 of any shape.
        is_two_way: True in the encoder, where half of the buckets are for keys after the query; a decoder has none.
        num_buckets: All buckets.
        max_distance: In tokens; every distance from here on shares the last bucket.
    """
    offset = torch.zeros_like(distances)
    if is_two_way:
        num_buckets //= 2
        offset = (distances > 0).long() * num_buckets
        distances = distances.abs()
    else:
        distances = -distances.clamp(max=0)
    exact = num_buckets // 2
    log_ratio = torch.log(distances.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = exact + (log_ratio * (num_buckets - exact)).long()
    return offset + torch.where(distances < exact, distances, far.clamp(max=num_buckets - 1))


class _Embedding:
    """Tokens alone: positions enter through attention. float16 sums leave its range, so they are kept in float32."""

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = F.embedding(ids, self._tokens)
        return x.float() if x.dtype == torch.float16 else x


class _Reader:
    """Names of the layers' weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._config: Any = weights.checkpoint.config
        # Feed-forward outputs overflow float16 (transformers keeps this layer in float32, too).
        self._outer_dtype = torch.float32 if weights.dtype == torch.float16 else None

    def stack(self, side: str) -> Stack:
        config = self._config
        buckets = functools.partial(
            relative_buckets,
            is_two_way=side == "encoder",
            num_buckets=config.get("relative_attention_num_buckets", 32),
            max_distance=config.get("relative_attention_max_distance", 128),
        )
        bias = self._weights.tensor(f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        return Stack(
            embed=_Embedding(self._weights.embedding((f"{side}.embed_tokens.weight", *_TABLES, "lm_head.weight"))),
            num_heads=config["num_heads"],
            scale=1.0,
            bias=RelativeBias(bias, buckets),
            leave=self._norm(f"{side}.final_layer_norm"),
        )

    def encoder_layer(self, number: int) -> EncoderLayer:
        root = f"encoder.block.{number}.layer"
        return EncoderLayer(self._self_attention(root), self._feed_forward(f"{root}.1"), self._residual(f"{root}.1"))

    def decoder_layer(self, number: int) -> DecoderLayer:
        root = f"decoder.block.{number}.layer"
        name = f"{root}.1.EncDecAttention"
        cross = CrossAttention(
            q=self._weights.linear([f"{name}.q.weight"]),
            kv=self._weights.linear([f"{name}.k.weight", f"{name}.v.weight"]),
            out=self._weights.linear([f"{name}.o.weight"]),
            residual=self._residual(f"{root}.1"),
        )
        feed_forward, residual = self._feed_forward(f"{root}.2"), self._residual(f"{root}.2")
        return DecoderLayer(self._self_attention(root), cross, feed_forward, residual)

    def _self_attention(self, root: str) -> SelfAttention:
        name = f"{root}.0.SelfAttention"
        return SelfAttention(
            qkv=self._weights.linear([f"{name}.{part}.weight" for part in "qkv"]),
            out=self._weights.linear([f"{name}.o.weight"]),
            residual=self._residual(f"{root}.0"),
        )

    def _feed_forward(self, root: str) -> FeedForward:
        name = f"{root}.DenseReluDense"
        kind = self._config.get("feed_forward_proj", "relu")
        # "gated-gelu" has always meant the tanh form; "gelu" alone the exact one.
        activation = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
        outer = self._weights.linear([f"{name}.wo.weight"], dtype=self._outer_dtype)
        if not kind.startswith("gated-"):
            return FeedForward(self._weights.linear([f"{name}.wi.weight"]), None, outer, activation)
        inner, gate = (self._weights.linear([f"{name}.{part}.weight"]) for part in ("wi_0", "wi_1"))
        return FeedForward(inner, gate, outer, activation)

    def _residual(self, root: str) -> Residual:
        epsilon = self._config.get("layer_norm_epsilon", 1e-6)
        return Residual(RootMeanSquareNorm(self._weights.tensor(f"{root}.layer_norm.weight"), epsilon), "before")

    def _norm(self, root: str) -> RootMeanSquareNorm:
        return RootMeanSquareNorm(self._weights.tensor(f"{root}.weight"), self._config.get("layer_norm_epsilon", 1e-6))
