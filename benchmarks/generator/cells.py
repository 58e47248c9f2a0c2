"""What is measured: each cell's name, what it takes, and the plans made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.generator import contention, floors, hop, programs
from benchmarks.generator.lab import Lab
from benchmarks.generator.measuring import interleaved, load
from benchmarks.generator.workload import Kind, Workload

SHAPES = ("bart-base", "t5-small")
MODES: dict[str, tuple[Kind, int]] = {
    "RAG-Token greedy": ("token", 1),
    "RAG-Token beam 4": ("token", 4),
    "RAG-Sequence greedy": ("sequence", 1),
    "RAG-Sequence beam 4": ("sequence", 4),
}
# Axis -> (field of the workload, what the other fields are, its values, the largest the peer is asked for).
CURVES: dict[str, tuple[str, Workload, tuple[int, ...], int]] = {
    "passages": ("num_passages", Workload(), (1, 2, 5, 10, 20, 50), 10),
    "tokens of a passage": ("num_tokens", Workload(), (50, 100, 200, 300, 400), 400),
    "beams": ("num_beams", Workload(), (1, 2, 4, 8), 8),
    "questions at once": ("num_questions", Workload(num_tokens=100), (1, 2, 4, 8, 16, 32, 64), 4),
    "tokens of the answer": ("num_new_tokens", Workload(), (8, 16, 32, 64, 128), 128),
}
_SIDES = ("peer", "fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to measure; `run` takes the lab and the number of rounds."""

    name: str
    run: Callable[[Lab, int], dict[str, Any]]


def generation(workload: Workload, variants: tuple[str, ...], *, repeats: int | None = None) -> Cell:
    """Answers a workload with every variant and notes whose token ids are the peer's."""

    def run(lab: Lab, rounds: int) -> dict[str, Any]:
        runners = lab.runners(workload, variants)
        ids: dict[str, Any] = {}

        def kept(name: str) -> Callable[[], None]:
            return lambda: ids.update({name: runners[name]()})

        times = interleaved({name: kept(name) for name in runners}, repeats=repeats or rounds, clock=lab.clock)
        if "peer" in ids:
            for name in set(ids) - {"peer"}:
                times[name]["same_ids_ratio"] = _share_equal(ids[name], ids["peer"])
        return {"variants": times, "load": load()}

    return Cell(workload.name, run)


def cpu_plan() -> Iterator[Cell]:
    """The goal table first, then the curves, then the rest of the grid."""
    base = Workload()
    yield from (*_goals(base), *_goals(replace(base, shape="t5-small")))
    for shape in SHAPES:
        yield Cell(f"floor {shape}", partial(_floor, shape))
    yield Cell(
        "query encoder", lambda _, rounds: programs.measure("benchmarks.query_encoder", f"--rounds={5 * rounds}")
    )
    for dtype in ("float32", "bfloat16"):
        yield Cell(f"lookup speculation {dtype}", partial(_speculation, dtype))
    yield Cell("gateway hop", lambda _, rounds: hop.measure(rounds))
    yield Cell("two services", lambda lab, rounds: contention.measure(lab.path("t5-small"), rounds))
    for axis, (_, _, values, limit) in CURVES.items():
        for value in values:
            yield generation(point(axis, value), _SIDES if value <= limit else _SIDES[1:], repeats=1)
    for shape in SHAPES:
        for kind, beams in MODES.values():
            short = Workload(shape=shape, kind=kind, num_beams=beams, num_tokens=100)
            yield generation(short, _SIDES)
            yield generation(replace(short, num_questions=4), _SIDES, repeats=1)
            yield generation(replace(short, num_questions=16), _SIDES[1:], repeats=1)


def gpu_plan() -> Iterator[Cell]:
    """One question, then 32 at once, in every mode; bfloat16 is what a GPU is asked for."""
    for shape in SHAPES:
        for kind, beams in MODES.values():
            one = Workload(shape=shape, kind=kind, num_beams=beams)
            yield generation(one, ("peer", "peer_bf16", "fp32", "bf16"))
            batched = ("peer_batched", "peer_bf16_batched") if kind == "token" else ()
            yield generation(replace(one, num_questions=32), ("peer", *batched, "bf16"))


def quick_plan() -> Iterator[Cell]:
    """Two small cells, for a test."""
    for kind in ("token", "sequence"):
        small = Workload(
            shape="tiny", kind=kind, num_beams=2, num_passages=2, num_tokens=8, num_new_tokens=4, num_questions=2
        )
        yield generation(small, ("peer", "peer_batched", "peer_bf16", "plain", "fp32_cached", "bf16"))


def point(axis: str, value: int) -> Workload:
    """The workload of one point of a curve."""
    field, workload, _, _ = CURVES[axis]
    changes: dict[str, Any] = {field: value}
    return replace(workload, **changes)


def distinct(plan: Iterable[Cell]) -> list[Cell]:
    """The plan without cells that it names again: some points of the curves are goals."""
    cells: dict[str, Cell] = {}
    for cell in plan:
        cells.setdefault(cell.name, cell)
    return list(cells.values())


def _goals(base: Workload) -> Iterator[Cell]:
    """The workloads that engine goals are stated for."""
    yield generation(base, ("peer", "plain", "fp32", "bf16", "fp32_cached", "bf16_cached"))
    yield generation(replace(base, num_beams=4), ("peer", "plain", "fp32", "bf16"))
    yield generation(replace(base, kind="sequence"), _SIDES)
    yield generation(replace(base, kind="sequence", num_beams=4), _SIDES)
    yield generation(replace(base, num_questions=4), ("peer", "peer_batched", "fp32", "bf16"))


def _floor(shape: str, lab: Lab, rounds: int) -> dict[str, Any]:
    return floors.measure(lab, Workload(shape=shape), rounds)


def _speculation(dtype: str, lab: Lab, rounds: int) -> dict[str, Any]:
    return programs.measure("benchmarks.speculation", f"--dtype={dtype}", f"--repeats={rounds}")


def _share_equal(ours: list[Any], theirs: list[Any]) -> float:
    num_equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return float(num_equal / len(theirs))
