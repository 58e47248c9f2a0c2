"""Linear layers: prepacked oneDNN weights where that is faster, `F.linear` elsewhere.

torch's default fp32 GEMM on AMD (MKL) runs at half the speed of oneDNN on weights packed once; with few rows, as in a
decode step, packing wins 3x (AMD EPYC Zen 5, one core, 768 x 3072, 5 rows: 554 -> 127 us fp32, 161 -> 71 us bf16).
In int8 products are up to four times as fast as in fp32 (the same machine: 960 x 384 x 1152, 3.7 -> 0.9 ms).
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

Backend = Literal["plain", "packed", "int8"]

_INT8_TOLERANCE, _SMALLEST = 0.06, 1e-30
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


class Int8Linear:
    """Products of integers on CPU: each row of the weight and of the input is rounded to 255 levels of its own scale.

    A row's result depends on no other row. Everything around the products stays float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scales, levels = _levels(weight)
        self._weight = torch.ops.onednn.qlinear_prepack(levels, None)
        self._scales, self._zeros = scales.flatten(), torch.zeros(len(weight), dtype=torch.int64)
        self._bias = weight.new_zeros(1) if bias is None else bias

    def __call__(self, x: Tensor, *, activation: str = "none", residual: Tensor | None = None) -> Tensor:
        """See `Linear`."""
        scales, levels = _levels(x)
        # Above zero, which they all are with the first bit turned: oneDNN is fast with such inputs only.
        inputs = levels.bitwise_xor_(-128).view(torch.uint8)
        products = torch.ops.onednn.qlinear_pointwise(
            inputs, 1.0, 128, self._weight, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        y = torch.addcmul(self._bias, products, scales, out=products)
        return _ACTIVATIONS[activation][2](y) if residual is None else y.add_(residual)


def _levels(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Scales (M, 1) and int8 levels (M, K), from -127 to 127, whose products are about `rows`."""
    scales = rows.abs().amax(1, keepdim=True).clamp_(min=_SMALLEST).div_(127)
    return scales, (rows / scales).round_().to(torch.int8)


def make_linear(weight: Tensor, bias: Tensor | None, backend: Backend) -> Linear:
    """A layer for `weight` (out, in) and `bias` (out,), which may be dropped by the caller afterwards."""
    if backend == "int8":
        return Int8Linear(weight, bias)
    return PackedLinear(weight, bias) if backend == "packed" else PlainLinear(weight, bias)


def rounded_rows(count: int) -> int:
    """At least `count` rows, and so many that layers meet few different numbers of them: 70 up to 1024.

    oneDNN builds a kernel for each: 2 ms and 2.5 MB for the four layers of MiniLM. Costs 3 % of the rows on average.
    """
    step = 4 if count <= 32 else max(8, 1 << count.bit_length() - 1 >> 4)
    return -(-count // step) * step


@functools.cache
def choose_backend(dtype: torch.dtype, device_type: str) -> Backend:
    """The backend for this machine: "packed" only where it works, agrees with `F.linear` and is not slower.

    For torch.int8 in the same way "int8", compared with the one for float32, which it gives otherwise.
    """
    if device_type != "cpu":
        return "plain"
    if dtype == torch.int8:
        usual = choose_backend(torch.float32, device_type)
        return "int8" if _is_better("int8", usual, torch.float32, tolerance=_INT8_TOLERANCE) else usual
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    return "packed" if _is_better("packed", "plain", dtype, tolerance=tolerance) else "plain"


def _is_better(backend: Backend, usual: Backend, dtype: torch.dtype, *, tolerance: float) -> bool:
    try:
        return _is_sound(backend, dtype, tolerance=tolerance) and _is_faster(backend, usual, dtype)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _layer(dtype: torch.dtype, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight and bias; one input row and one weight row are as large as they can be in int8."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 512, generator=generator).to(dtype)
    weight = (torch.randn(768, 512, generator=generator) * 512**-0.5).to(dtype)
    bias = torch.randn(768, generator=generator).to(dtype)
    x[0], weight[0] = 1, 512**-0.5
    return x, weight, bias


def _is_sound(backend: Backend, dtype: torch.dtype, *, tolerance: float) -> bool:
    for rows in (1, 5, 130):
        x, weight, bias = _layer(dtype, rows)
        plain, own = make_linear(weight, bias, "plain"), make_linear(weight, bias, backend)
        residual = torch.linspace(-1, 1, rows * 768).reshape(rows, 768).to(dtype)
        pairs = [(plain(x, activation=name), own(x, activation=name)) for name in sorted(ACTIVATIONS)]
        pairs.append((plain(x, residual=residual), own(x, residual=residual)))
        if not all(torch.allclose(a.float(), b.float(), atol=tolerance, rtol=tolerance) for a, b in pairs):
            return False
    return True


def _is_faster(backend: Backend, usual: Backend, dtype: torch.dtype) -> bool:
    """Decode-sized and encode-sized products in turns, best of seven each, in process time: neighbours do not count."""
    usual_seconds = own_seconds = 0.0
    for rows, repeats in ((5, 20), (256, 2)):
        x, weight, bias = _layer(dtype, rows)
        theirs, own = make_linear(weight, bias, usual), make_linear(weight, bias, backend)
        rounds = [(_time(theirs, x, repeats), _time(own, x, repeats)) for _ in range(7)]
        usual_seconds += min(theirs for theirs, _ in rounds)
        own_seconds += min(own for _, own in rounds)
    return own_seconds <= usual_seconds


def _time(layer: Linear, x: Tensor, repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        layer(x)
    return (time.process_time() - started) / repeats
