"""Two services with two threads each on two cores: OpenMP threads that spin while they wait would ruin both.

    python -m benchmarks.generator.contention CHECKPOINT --threads 2

is one of the services: it answers one question after each line of standard input and prints the wall milliseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.generator.measuring import cpu_clock, load
from benchmarks.generator.ours import Ours
from benchmarks.generator.workload import Workload, questions
from benchmarks.machine import ROOT

_CORES = 2
_QUESTIONS = 3
_ROUNDS_FACTOR = 4


def measure(checkpoint: Path, rounds: int) -> dict[str, Any]:
    """Wall milliseconds per question: one service with one thread alone, two such, and two services of two threads.

    The best of the rounds: wall time is what matters here, and neighbours on the machine only ever lengthen it.
    """
    settings = {"one service, 1 thread": (1, 1), "two services, 1 thread": (2, 1), "two services, 2 threads": (2, 2)}
    taken: dict[str, list[float]] = {name: [] for name in settings}
    with ExitStack() as stack:
        services = {
            threads: [stack.enter_context(_service(checkpoint, threads)) for _ in range(_CORES)] for threads in (1, 2)
        }
        for round_number in range(_ROUNDS_FACTOR * rounds + 1):
            for name, (count, threads) in settings.items():
                times = _together(services[threads][:count])
                if round_number:
                    taken[name].append(statistics.mean(times))
    return {"wall_ms": {name: round(min(values), 2) for name, values in taken.items()}, "load": load()}


def _together(services: list[subprocess.Popen[str]]) -> list[float]:
    for service in services:
        assert service.stdin is not None
        service.stdin.write("\n")
        service.stdin.flush()
    return [float(service.stdout.readline()) for service in services if service.stdout is not None]


def _service(checkpoint: Path, threads: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", __name__, str(checkpoint), f"--threads={threads}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(argv, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _serve(checkpoint: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    workload = Workload(num_new_tokens=10, num_questions=_QUESTIONS)
    ours = Ours(checkpoint, dtype="bfloat16")
    asked = questions(workload, ours.model.spec.vocab_size)
    for _ in sys.stdin:
        print(cpu_clock(lambda: ours.answer(workload, asked)).wall_ms / _QUESTIONS, flush=True)
    ours.close()


def main() -> None:
    """Runs one service on the first two cores, whatever the caller is bound to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(_CORES))
    _serve(arguments.checkpoint, arguments.threads)


if __name__ == "__main__":
    main()
