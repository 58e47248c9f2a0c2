"""How far encoding and a decode step are from what the machine could do at best.

The floor of encoding is its multiplications at the speed of one large matrix product; the floor of a step is the larger
of that and of reading the decoder's weights and the passages' keys and values once from memory. Both speeds are
measured in the same run as the model.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from benchmarks.generator.lab import Lab
from benchmarks.generator.measuring import cpu_clock, load
from benchmarks.generator.workload import Workload, questions
from generator_service.models.base import StepItem
from generator_service.models.lean import LeanModel
from serving.linear import choose_backend, make_linear

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CROSS = re.compile(r"(encoder_attn\.[kv]_proj|EncDecAttention\.[kv])\.weight$")
_QUERY = re.compile(r"(q_proj|\.q)\.weight$")
_NO_PRODUCT = re.compile(r"(embed|shared|relative_attention_bias|lm_head|final_logits_bias)")
_PROBE = (1000, 768, 3072)
_PROBE_FLOPS = 2.0 * _PROBE[0] * _PROBE[1] * _PROBE[2]
_READ_BYTES = 1 << 28
_PROBE_RUNS = 5
_NUM_STEPS = 10


@dataclass(frozen=True, slots=True)
class Sizes:
    """Weights that take part in products, by part of the model, and widths."""

    encoder: int
    cross: int
    """Of cross-attention's keys and values."""
    decoder: int
    """Everything else a step reads, the output table included."""
    attention_width: int
    """Of the encoder's attention, over all layers."""
    cross_width: int
    """Of cross-attention's keys and values, over all layers."""

    @classmethod
    def of(cls, path: Path) -> Sizes:
        """Counts them in a checkpoint."""
        total: Counter[str] = Counter()
        with safe_open(path / "model.safetensors", framework="pt") as file:
            for name in list(file.keys()):
                shape = file.get_slice(name).get_shape()
                if name.endswith("shared.weight"):
                    total["table"] = shape[0] * shape[1]
                if len(shape) != 2 or _NO_PRODUCT.search(name):
                    continue
                part = "cross" if _CROSS.search(name) else "decoder" if "decoder." in name else "encoder"
                total[part] += shape[0] * shape[1]
                if part == "cross":
                    total["cross_width"] += shape[0]
                elif part == "encoder" and _QUERY.search(name):
                    total["attention_width"] += shape[0]
        return cls(
            total["encoder"],
            total["cross"],
            total["decoder"] + total["table"],
            total["attention_width"],
            total["cross_width"],
        )

    def encode_flops(self, num_rows: int, num_tokens: int) -> float:
        """Of encoding the rows, the quadratic part included, and projecting cross-attention's keys and values."""
        attention = 4.0 * num_rows * num_tokens**2 * self.attention_width
        return 2.0 * (self.encoder + self.cross) * num_rows * num_tokens + attention

    def step_flops(self, num_rows: int, num_tokens: int) -> float:
        """Of one decode step, with cross-attention."""
        return 2.0 * self.decoder * num_rows + 2.0 * self.cross_width * num_rows * num_tokens

    def step_numbers(self, num_rows: int, num_tokens: int) -> int:
        """Numbers that one decode step reads: weights, and the keys and values of the rows."""
        return self.decoder + self.cross_width * num_rows * num_tokens


def measure(lab: Lab, workload: Workload, rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU and their floors, float32 and bfloat16, probes and model taking turns."""
    lab.runners(workload, ())
    sizes = Sizes.of(lab.path(workload.shape))
    rows, tokens = workload.num_passages, workload.num_tokens
    result: dict[str, Any] = {"load": load()}
    for name, dtype in _DTYPES.items():
        taken = _taken(lab.ours(name).model, questions(workload, 1000)[0].rows, dtype, rounds)
        flops_per_ms = _PROBE_FLOPS / min(taken["product"])
        bytes_per_ms = _READ_BYTES / min(taken["read"])
        floor = {
            "encode": sizes.encode_flops(rows, tokens) / flops_per_ms,
            "step": max(
                sizes.step_flops(rows, tokens) / flops_per_ms,
                sizes.step_numbers(rows, tokens) * dtype.itemsize / bytes_per_ms,
            ),
        }
        result[name] = {
            "gflops": round(flops_per_ms / 1e6, 1),
            "gb_per_second": round(bytes_per_ms / 1e6, 1),
            **{
                part: {"ours_ms": round(statistics.median(taken[part]), 3), "floor_ms": round(floor[part], 3)}
                for part in floor
            },
        }
    return result


def _taken(model: LeanModel, inputs: list[list[int]], dtype: torch.dtype, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each probe and part, round by round."""
    product, read = _product(dtype), _read()
    taken: dict[str, list[float]] = {"product": [], "read": [], "encode": [], "step": []}
    for round_number in range(rounds + 1):
        state: list[Any] = []

        def encode(opened: list[Any] = state) -> None:
            opened.append(model.open(model.encode(inputs)))

        def step(opened: list[Any] = state) -> None:
            for _ in range(_NUM_STEPS):
                model.step([StepItem(opened[0], torch.full((1, len(inputs)), 2))])

        times = {
            "product": min(cpu_clock(product).cpu_ms for _ in range(_PROBE_RUNS)),
            "read": min(cpu_clock(read).cpu_ms for _ in range(_PROBE_RUNS)),
            "encode": cpu_clock(encode).cpu_ms,
            "step": cpu_clock(step).cpu_ms / _NUM_STEPS,
        }
        if round_number:
            for part, value in times.items():
                taken[part].append(value)
    return taken


def _product(dtype: torch.dtype) -> Callable[[], object]:
    tokens, inner, outer = _PROBE
    layer = make_linear(torch.randn(outer, inner).to(dtype), None, choose_backend(dtype, "cpu"))
    x = torch.randn(tokens, inner).to(dtype)
    return lambda: layer(x)


def _read() -> Callable[[], object]:
    """A sum over more than any cache holds."""
    numbers = torch.zeros(_READ_BYTES // 4)
    return numbers.sum
