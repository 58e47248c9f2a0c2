"""The goal table: what each number must reach, and how it is read from the cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from benchmarks.generator.cells import MODES, SHAPES
from benchmarks.generator.workload import Workload

Cells = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One number against its goal. `value` is in `unit`; "x" is a ratio, peer or floor against ours."""

    name: str
    variant: str
    peer_ms: float | None
    ours_ms: float | None
    value: float
    unit: Literal["x", "ms", "messages/s"]
    goal: float | None
    better: Literal["higher", "lower"]

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def as_json(self) -> dict[str, Any]:
        """For the result file; `ratio` is the value where that is one."""
        return {**asdict(self), "ratio": self.value if self.unit == "x" else None, "is_met": self.is_met}


@dataclass(frozen=True, slots=True)
class _Speedup:
    """Goals of a workload's variants against a peer variant."""

    name: str
    workload: Workload
    goals: Mapping[str, float | None]
    peer: str = "peer"

    def rows(self, cells: Cells, clock: str) -> Iterator[Row]:
        cell = cells.get(self.workload.name)
        times = cell["variants"] if cell else {}
        for variant, goal in self.goals.items():
            if variant in times and self.peer in times:
                theirs, ours = times[self.peer][clock], times[variant][clock]
                name = f"{self.workload.shape}: {self.name}"
                yield Row(name, variant, theirs, ours, round(theirs / ours, 2), "x", goal, "higher")


_CPU_GOALS: dict[str, dict[str, float | None]] = {
    "RAG-Token greedy": {"fp32": 2.3, "bf16": 4.0},
    "RAG-Token beam 4": {"fp32": 3.6, "bf16": 6.0},
    "RAG-Sequence greedy": {"fp32": 3.6, "bf16": 6.0},
    "RAG-Sequence beam 4": {"fp32": 7.5, "bf16": 12.0},
}
_FLOOR_GOALS = {"fp32": {"encode": 1.4, "step": 2.0}, "bf16": {"encode": 1.5, "step": 2.5}}


def rows(cells: Cells, *, device: str) -> list[Row]:
    """Every goal whose cell has been measured."""
    if device != "cpu":
        return list(_gpu_rows(cells))
    found: list[Row] = []
    for shape in SHAPES:
        for speedup in _cpu_speedups(Workload(shape=shape)):
            found += speedup.rows(cells, "cpu_ms")
        found += _floor_rows(cells, shape)
    for cell, read in _OTHERS.items():
        if cell in cells:
            found += read(cells[cell])
    return found


def _cpu_speedups(base: Workload) -> Iterator[_Speedup]:
    for name, (kind, beams) in MODES.items():
        yield _Speedup(name, replace(base, kind=kind, num_beams=beams), _CPU_GOALS[name])
    four = replace(base, num_questions=4)
    yield _Speedup("4 questions at once, peer one by one", four, {"fp32": 2.8, "bf16": 5.0})
    yield _Speedup("4 questions at once, peer batched by hand", four, {"fp32": 2.1, "bf16": 3.7}, "peer_batched")
    yield _Speedup("repeated question, encoder states cached", base, {"fp32_cached": 5.3, "bf16_cached": 8.3})
    yield _Speedup("RAG-Token greedy on F.linear", base, {"plain": 1.1})
    yield _Speedup("RAG-Token beam 4 on F.linear", replace(base, num_beams=4), {"plain": 1.4})


def _gpu_rows(cells: Cells) -> Iterator[Row]:
    """Five times transformers' float32 at one question, fifteen times its tokens per second at 32 at once."""
    for shape in SHAPES:
        for name, (kind, beams) in MODES.items():
            one = Workload(shape=shape, kind=kind, num_beams=beams)
            many = replace(one, num_questions=32)
            yield from _Speedup(name, one, {"fp32": None, "bf16": 5.0}).rows(cells, "wall_ms")
            yield from _Speedup(f"{name}, 32 at once", many, {"bf16": 15.0}).rows(cells, "wall_ms")


def _floor_rows(cells: Cells, shape: str) -> Iterator[Row]:
    cell = cells.get(f"floor {shape}", {})
    for variant, goals in _FLOOR_GOALS.items() if cell else ():
        for part, goal in goals.items():
            ours, floor = cell[variant][part]["ours_ms"], cell[variant][part]["floor_ms"]
            name = f"{shape}: distance to the floor, {part}"
            yield Row(name, variant, floor, ours, round(ours / floor, 2), "x", goal, "lower")


def _query_encoder_rows(cell: Mapping[str, Any]) -> Iterator[Row]:
    for row in cell["rows"]:
        name, variant = f"query encoder: {row['name']}", _SHORT[row["dtype"]]
        yield Row(name, variant, row["peer_ms"], row["ours_ms"], row["ratio"], "x", row["goal"], "higher")


def _hop_rows(cell: Mapping[str, Any]) -> Iterator[Row]:
    ms = cell["cpu_ms"]
    yield Row("gateway: CPU per forwarded call", "", None, ms["forward"], round(ms["forward"], 3), "ms", 0.5, "lower")
    for name, part in (("service: messages sent", "sent"), ("gateway: messages relayed", "relayed")):
        yield Row(f"{name} per CPU second", "", None, ms[part], round(1000 / ms[part]), "messages/s", 30e3, "higher")


def _contention_rows(cell: Mapping[str, Any]) -> Iterator[Row]:
    alone, both = (cell["wall_ms"][name] for name in ("one service, 1 thread", "two services, 2 threads"))
    name = "two services x two threads on two cores against one thread alone"
    is_alone = cell["load"] <= _MAX_LOAD
    name += "" if is_alone else " (not judged: others used the cores)"
    yield Row(name, "bf16", alone, both, round(both / alone, 2), "x", 1.3 if is_alone else None, "lower")


def _speculation_rows(variant: str, cell: Mapping[str, Any]) -> Iterator[Row]:
    """How much it gains is to be known; no goal says how much it should."""
    for row in cell["rows"]:
        size = f"{row['num_passages']} passages, {row['length']} answers, {row['requests_together']} at once"
        off, on = row["ms_per_answer_off"], row["ms_per_answer_lookup"]
        yield Row(
            f"lookup speculation, decoding alone: {size}", variant, off, on, round(off / on, 2), "x", None, "higher"
        )


_MAX_LOAD = 4.0  # What the two services make themselves; beyond that wall times are about others.
_SHORT = {"float32": "fp32", "bfloat16": "bf16"}
_OTHERS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Row]]] = {
    "query encoder": _query_encoder_rows,
    "lookup speculation float32": partial(_speculation_rows, "fp32"),
    "lookup speculation bfloat16": partial(_speculation_rows, "bf16"),
    "gateway hop": _hop_rows,
    "two services": _contention_rows,
}
