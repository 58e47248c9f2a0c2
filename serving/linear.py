"""Linear layers: prepacked oneDNN weights where that is faster, `F.linear` elsewhere.

torch's default fp32 GEMM on AMD (MKL) runs at half the speed of oneDNN on weights packed once; with few rows, as in a
decode step, packing wins 3x (AMD EPYC Zen 5, one core, 768 x 3072, 5 rows: 554 -> 127 us fp32, 161 -> 71 us bf16).
The packing operators are private to torch, so `choose_backend` computes, compares and times them once per dtype before
they are trusted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Backend = Literal["plain", "packed"]

_SILU = torch.nn.functional.silu
# Name in a checkpoint's config -> (oneDNN post-op, its algorithm, the plain function).
_ACTIVATIONS: dict[str, tuple[str, str, Callable[[Tensor], Tensor]]] = {
    "none": ("none", "", lambda x: x),
    "relu": ("relu", "", torch.relu),
    "gelu": ("gelu", "none", F.gelu),
    "gelu_new": ("gelu", "tanh", functools.partial(F.gelu, approximate="tanh")),
    "gelu_pytorch_tanh": ("gelu", "tanh", functools.partial(F.gelu, approximate="tanh")),
    "silu": ("swish", "", _SILU),
}
ACTIVATIONS = frozenset(_ACTIVATIONS)


class Linear(Protocol):
    """y = activation(x W^T + b), or x W^T + b + residual; not both."""

    def __call__(self, x: Tensor, *, activation: str = "none", residual: Tensor | None = None) -> Tensor:
        """From x (M, in) to (M, out) in x's dtype, or in the dtype of `residual` (M, out) where that is wider."""
        ...


class PlainLinear:
    """`F.linear`: any device, any dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor, *, activation: str = "none", residual: Tensor | None = None) -> Tensor:
        """See `Linear`."""
        y = F.linear(x.to(self._weight.dtype), self._weight, self._bias)
        if residual is not None:
            return y + residual
        return _ACTIVATIONS[activation][2](y)


class PackedLinear:
    """oneDNN on CPU with the weight packed once; the activation runs inside the product."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self._bias = bias

    @property
    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """Weight, as only `packed_product` reads it, and bias."""
        return self._weight, self._bias

    def __call__(self, x: Tensor, *, activation: str = "none", residual: Tensor | None = None) -> Tensor:
        """See `Linear`."""
        y = packed_product(x, self._weight, self._bias, post_op(activation))
        return y if residual is None else y + residual


def packed_product(x: Tensor, weight: Tensor, bias: Tensor | None, post_op: tuple[str, str]) -> Tensor:
    """Of a packed weight, in words that TorchScript understands."""
    scalars = torch.jit.annotate(list[int | float | complex | None], [])  # type: ignore[no-untyped-call]
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, post_op[0], scalars, post_op[1])
    return y


def post_op(activation: str) -> tuple[str, str]:
    """Name and algorithm that oneDNN has for an activation."""
    name, algorithm, _ = _ACTIVATIONS[activation]
    return name, algorithm


def make_linear(weight: Tensor, bias: Tensor | None, backend: Backend) -> Linear:
    """A layer for `weight` (out, in) and `bias` (out,), which may be dropped by the caller afterwards."""
    return PackedLinear(weight, bias) if backend == "packed" else PlainLinear(weight, bias)


def rounded_rows(count: int) -> int:
    """At least `count` rows, and so many that layers meet few different numbers of them: 70 up to 1024.

    oneDNN builds a kernel for each: 2 ms and 2.5 MB for the four layers of MiniLM. Costs 3 % of the rows on average.
    """
    step = 4 if count <= 32 else max(8, 1 << count.bit_length() - 1 >> 4)
    return -(-count // step) * step


@functools.cache
def choose_backend(dtype: torch.dtype, device_type: str) -> Backend:
    """The backend for this machine: "packed" only where it works, agrees with `F.linear` and is not slower."""
    if device_type != "cpu":
        return "plain"
    try:
        return "packed" if _packed_is_sound(dtype) and _packed_is_faster(dtype) else "plain"
    except (AttributeError, NotImplementedError, RuntimeError):
        return "plain"


def _layers(dtype: torch.dtype, rows: int) -> tuple[Tensor, PlainLinear, PackedLinear]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 512, generator=generator).to(dtype)
    weight = (torch.randn(768, 512, generator=generator) * 512**-0.5).to(dtype)
    bias = torch.randn(768, generator=generator).to(dtype)
    return x, PlainLinear(weight, bias), PackedLinear(weight, bias)


def _packed_is_sound(dtype: torch.dtype) -> bool:
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    for rows in (1, 5, 130):
        x, plain, packed = _layers(dtype, rows)
        residual = torch.linspace(-1, 1, rows * 768).reshape(rows, 768).to(dtype)
        pairs = [(plain(x, activation=name), packed(x, activation=name)) for name in sorted(ACTIVATIONS)]
        pairs.append((plain(x, residual=residual), packed(x, residual=residual)))
        if not all(torch.allclose(a.float(), b.float(), atol=tolerance, rtol=tolerance) for a, b in pairs):
            return False
    return True


def _packed_is_faster(dtype: torch.dtype) -> bool:
    """Decode-sized and encode-sized products in turns, best of seven each, in process time: neighbours do not count."""
    plain_seconds = packed_seconds = 0.0
    for rows, repeats in ((5, 20), (256, 2)):
        x, plain, packed = _layers(dtype, rows)
        rounds = [(_time(plain, x, repeats), _time(packed, x, repeats)) for _ in range(7)]
        plain_seconds += min(plain for plain, _ in rounds)
        packed_seconds += min(packed for _, packed in rounds)
    return packed_seconds <= plain_seconds


def _time(layer: Linear, x: Tensor, repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        layer(x)
    return (time.process_time() - started) / repeats
