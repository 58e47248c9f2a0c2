"""Clocks and samples: the variants of a cell take turns, so that a busy machine slows them alike."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Sample:
    """Milliseconds of one run: process CPU time of all threads, and wall time."""

    cpu_ms: float
    wall_ms: float


Clock = Callable[[Callable[[], object]], Sample]


def cpu_clock(run: Callable[[], object]) -> Sample:
    """Times a run on the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Sample(1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall))


def cuda_clock(run: Callable[[], object]) -> Sample:
    """Times a run on the GPU: to the end of all its work."""
    torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    torch.cuda.synchronize()
    return Sample(1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall))


def interleaved(
    variants: Mapping[str, Callable[[], object]], *, repeats: int, clock: Clock = cpu_clock
) -> dict[str, dict[str, Any]]:
    """Runs every variant once unmeasured, then `repeats` rounds of all of them.

    Returns:
        Per variant the medians `cpu_ms` and `wall_ms`, the extremes of the CPU time and the number of runs.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    for round_number in range(repeats + 1):
        for name, run in variants.items():
            gc.collect()
            sample = clock(run)
            if round_number:
                samples[name].append(sample)
    return {name: _summary(taken) for name, taken in samples.items()}


def load() -> float:
    """Processes that wanted the machine's cores over the last minute."""
    return round(os.getloadavg()[0], 1)


def _summary(taken: list[Sample]) -> dict[str, Any]:
    cpu = [sample.cpu_ms for sample in taken]
    return {
        "cpu_ms": round(statistics.median(cpu), 3),
        "wall_ms": round(statistics.median(sample.wall_ms for sample in taken), 3),
        "cpu_ms_range": [round(min(cpu), 3), round(max(cpu), 3)],
        "runs": len(taken),
    }
