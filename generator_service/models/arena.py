"""A decode step in fixed shapes and fixed memory: what `graphs` records.

Rows of several requests are padded to one bucket. Their own keys and values end at the last place whatever a row's
position, so that the new token's place and its distances are the same for all. Encoder keys and values are copied anew
only when other rows are stepped.

Shape letters as in `generator_service.models.base`; L decoder layers, W width, H heads, d head width, T own tokens,
C encoder tokens.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generator_service.models import attention
from generator_service.models.cache import CrossKeysValues
from generator_service.models.stepping import StepPart
from generator_service.models.transformer import Transformer

_MAX_ROWS = 512
_MAX_ENCODER_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """K beams of each of N rows, T own tokens (the new one last), C encoder tokens."""

    num_beams: int
    num_rows: int
    own_tokens: int
    encoder_tokens: int

    @classmethod
    def of(cls, parts: Sequence[StepPart]) -> Bucket | None:
        """The smallest that holds a step; None where beams differ, several tokens are fed, or it would be too large."""
        states = [part.state for part in parts]
        beams = {state.num_beams for state in states}
        if len(beams) > 1 or any(part.num_tokens > 1 for part in parts):
            return None
        rows = _power_of_two(sum(state.num_rows for state in states), least=4)
        encoder_tokens = -(-max(run.num_tokens for state in states for run in state.runs) // 64) * 64
        if rows * max(beams) > _MAX_ROWS or encoder_tokens > _MAX_ENCODER_TOKENS:
            return None
        own_tokens = _power_of_two(max(state.position for state in states) + 1, least=16)
        return cls(beams.pop(), rows, own_tokens, encoder_tokens)


class Arena:
    """The memory of one bucket, and the step that reads it."""

    def __init__(self, net: Transformer, bucket: Bucket, *, width: int, own_dtype: torch.dtype) -> None:
        """Allocates it; `width` is W of the self-attention keys."""
        beams, rows, layers = bucket.num_beams, bucket.num_rows, len(net.decoder_layers)
        heads = net.decoder.num_heads
        zeros = functools.partial(torch.zeros, device=net.device)
        self._net, self._bucket = net, bucket
        self._ids = zeros(beams, rows, dtype=torch.int64)
        self._positions = zeros(beams, rows, dtype=torch.int64)
        self._own = zeros(bucket.own_tokens, layers, 2, beams, rows, width, dtype=own_dtype)
        self._own_mask = zeros(beams, rows, bucket.own_tokens, dtype=own_dtype)
        self._cross = zeros(layers, 2, rows, heads, bucket.encoder_tokens, width // heads, dtype=net.dtype)
        self._cross_mask = zeros(rows, bucket.encoder_tokens, dtype=net.dtype)
        bias = net.decoder.bias
        self._bias = None if bias is None else bias.past(bucket.own_tokens)[:, None].clone()
        self._resident: list[tuple[weakref.ref[CrossKeysValues], tuple[int, ...]]] = []

    @property
    def num_bytes(self) -> int:
        """Of the keys and values."""
        return self._own.nbytes + self._cross.nbytes

    def fill(self, parts: Sequence[StepPart]) -> None:
        """Takes over what the parts' rows read; rows left over read zeros."""
        last = self._bucket.own_tokens - 1
        self._own_mask.fill_(float("-inf"))
        self._own_mask[:, :, last] = 0
        for part, here in self._places(parts):
            length = part.state.position
            self._ids[:, here] = part.tokens[0].to(self._ids.device)
            self._positions[:, here] = length
            self._own[last - length : last, :, :, :, here] = part.state.own.past(part.state.num_beams)
            self._own_mask[:, here, last - length : last] = 0
        if not self._has_resident(parts):
            self._fill_cross(parts)

    def take(self, parts: Sequence[StepPart], logits: Tensor) -> list[Tensor]:
        """After a step: gives the states their new keys and values, and each part its logits (1, K, N, V)."""
        for part, here in self._places(parts):
            part.state.own.push(self._own[-1, :, :, :, here])
        return self.split(parts, logits)

    def split(self, parts: Sequence[StepPart], logits: Tensor) -> list[Tensor]:
        """Each part's (1, K, N, V) of the bucket's logits (K, N, V)."""
        return [logits[None, :, here] for _, here in self._places(parts)]

    def step(self) -> Tensor:
        """The logits (K, N, V) of the whole bucket."""
        mask = self._own_mask.view(-1, 1, 1, self._bucket.own_tokens)
        attend_self = functools.partial(self._attend_self, mask if self._bias is None else mask + self._bias)
        ids, positions = self._ids.flatten(), self._positions.flatten()
        states = self._net.decode(ids, positions, attend_self, self._attend_cross)
        return self._net.logits(states).view(*self._ids.shape, -1)

    def _attend_self(self, bias: Tensor, layer: int, qkv: Tensor) -> Tensor:
        heads, width = qkv.shape[2:]
        wide = qkv.to(self._own.dtype)
        self._own[-1, layer] = wide[:, 1:].transpose(0, 1).reshape(self._own.shape[2:])
        keys, values = torch.unflatten(self._own[:, layer].flatten(2, 3), -1, (heads, width)).unbind(1)
        out = attention.step_self_attention(wide[None, :, 0], keys, values, bias, self._net.decoder.scale)
        return out.reshape(len(qkv), -1).to(qkv.dtype)

    def _attend_cross(self, layer: int, q: Tensor) -> Tensor:
        queries = q.view(*self._ids.shape, *q.shape[1:])
        keys, values = self._cross[layer]
        out = attention.step_cross_attention(queries, keys, values, self._cross_mask, self._net.decoder.scale)
        return out.reshape(len(q), -1)

    def _places(self, parts: Sequence[StepPart]) -> list[tuple[StepPart, slice]]:
        """Each part with its columns among the bucket's rows."""
        places, first = [], 0
        for part in parts:
            places.append((part, slice(first, first := first + part.state.num_rows)))
        return places

    def _has_resident(self, parts: Sequence[StepPart]) -> bool:
        """Whether the encoder keys and values are those of the last time."""
        return len(parts) == len(self._resident) and all(
            cross() is part.state.cross and rows == part.state.rows
            for part, (cross, rows) in zip(parts, self._resident, strict=True)
        )

    def _fill_cross(self, parts: Sequence[StepPart]) -> None:
        # Dropped rows must not leave what is not a number behind: zero times that is not zero.
        self._cross.zero_()
        self._cross_mask.zero_()
        first = 0
        for run in (run for part in parts for run in part.state.runs):
            here, length = slice(first, first := first + run.num_rows), run.num_tokens
            self._cross_mask[here, length:] = float("-inf")
            if run.mask is not None:
                self._cross_mask[here, :length] = run.mask
            for layer, pair in enumerate(run.layers):
                for side in (0, 1):
                    self._cross[layer, side, here, :, :length] = pair[side]
        self._resident = [(weakref.ref(part.state.cross), part.state.rows) for part in parts]


def _power_of_two(count: int, *, least: int) -> int:
    return max(least, 1 << (count - 1).bit_length())
