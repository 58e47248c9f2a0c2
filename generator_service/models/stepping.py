"""One decode step over the rows of several requests. Knows rows and their caches, not how they came to be.

The rows of all requests go through each layer in one product; attention runs per request, whose rows stand at one
position. Within a request rows lie token by token: (S, K, N).

Shape letters as in `generator_service.models.base`; M decoder rows of a request, K x N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generator_service.models import attention
from generator_service.models.cache import LeanState
from generator_service.models.transformer import Stack, Transformer


@dataclass(frozen=True, slots=True)
class StepPart:
    """One request's part: `tokens` (S, K, N) follow what `state` has consumed."""

    state: LeanState
    tokens: Tensor

    @classmethod
    def of(cls, state: LeanState, tokens: Tensor) -> StepPart:
        """From tokens (K, N) or (K, N, S)."""
        return cls(state, tokens[None] if tokens.ndim == 2 else tokens.permute(2, 0, 1))

    @property
    def num_tokens(self) -> int:
        """S."""
        return len(self.tokens)

    @property
    def positions(self) -> list[int]:
        """Of each of the S x M tokens."""
        start, rows = self.state.position, self.tokens[0].numel()
        return [start + token for token in range(self.num_tokens) for _ in range(rows)]


def step_logits(net: Transformer, parts: Sequence[StepPart]) -> list[Tensor]:
    """Appends each part's tokens to its state; the logits (S, K, N, V) after each."""
    step = _Step(net, parts)
    ids = torch.cat([part.tokens.flatten() for part in parts]).to(net.device)
    positions = torch.tensor([position for part in parts for position in part.positions]).to(net.device)
    logits = net.logits(net.decode(ids, positions, step.attend_self, step.attend_cross))
    for part in parts:
        part.state.own.length += part.num_tokens
    return [
        rows.view(*part.tokens.shape, -1) for part, rows in zip(parts, torch.split(logits, step.sizes), strict=True)
    ]


class _Step:
    """The attention of one step; reserves room for its tokens."""

    def __init__(self, net: Transformer, parts: Sequence[StepPart]) -> None:
        self._stack = net.decoder
        self._parts = parts
        self.sizes = [part.tokens.numel() for part in parts]
        for part in parts:
            part.state.own.reserve(part.num_tokens)
        self._biases = [_self_bias(net, part.num_tokens, part.state.position + part.num_tokens) for part in parts]

    def attend_self(self, layer: int, qkv: Tensor) -> Tensor:
        """Every token over its row's; see `transformer.Attend`."""
        wide = qkv.to(self._parts[0].state.own.dtype)
        outputs = []
        for part, bias, rows in zip(self._parts, self._biases, torch.split(wide, self.sizes), strict=True):
            by_token = rows.view(part.num_tokens, -1, *rows.shape[1:])
            keys, values = part.state.own.append(layer, by_token[:, :, 1:])
            out = attention.step_self_attention(by_token[:, :, 0], keys, values, bias, self._stack.scale)
            outputs.append(out.reshape(len(rows), -1))
        return _joined(outputs).to(qkv.dtype)

    def attend_cross(self, layer: int, q: Tensor) -> Tensor:
        """Every token over its encoder row; a row's beams and tokens are queries over one copy of it."""
        outputs = []
        for part, rows in zip(self._parts, torch.split(q, self.sizes), strict=True):
            queries = rows.view(-1, part.state.num_rows, *rows.shape[1:])
            outputs.append(_cross(part.state, layer, queries, self._stack).reshape(len(rows), -1))
        return _joined(outputs)


def _cross(state: LeanState, layer: int, queries: Tensor, stack: Stack) -> Tensor:
    """Queries (S x K, N, H, d) over each run of encoder rows."""
    parts = torch.split(queries, [run.num_rows for run in state.runs], 1)
    outputs = [
        attention.step_cross_attention(part, *run.layers[layer], run.mask, stack.scale)
        for run, part in zip(state.runs, parts, strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)


def _self_bias(net: Transformer, num_tokens: int, length: int) -> Tensor | None:
    """(1 or H, S, T) for the newest S of T tokens: the stack's bias, and -inf ahead of each token."""
    stack = net.decoder
    if num_tokens == 1:
        return None if stack.bias is None else stack.bias.past(length)[:, None]
    places = torch.arange(length, device=net.device)
    distances = places[None] - places[length - num_tokens :, None]
    bias = torch.zeros(1, *distances.shape, device=net.device) if stack.bias is None else stack.bias.at(distances)
    return bias.masked_fill(distances > 0, float("-inf"))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
