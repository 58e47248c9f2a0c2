"""The benchmark programs work: what takes an hour on real shapes takes seconds on tiny ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.generator import goals, report
from benchmarks.generator.__main__ import main
from benchmarks.generator.store import Store
from benchmarks.generator.workload import Workload


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    return ["--quick", "--repeats", "1", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "result.json")]


def test_the_generator_benchmark_gives_transformers_ids_and_goes_on_where_it_stopped(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*arguments, "--only", "kind=token"])
    first = json.loads((tmp_path / "result.json").read_text())["cells"]
    assert len(first) == 1
    main(arguments)
    cells = json.loads((tmp_path / "result.json").read_text())["cells"]
    assert len(cells) == 2
    for name, cell in cells.items():
        assert cell == first.get(name, cell)  # not measured again
        assert set(cell["variants"]) == {"peer", "peer_batched", "peer_bf16", "plain", "fp32_cached", "bf16"}
        for variant in ("peer_batched", "plain", "fp32_cached"):
            assert cell["variants"][variant]["same_ids_ratio"] == 1.0


def test_cells_of_another_commit_or_machine_and_cut_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    Store(path, origin="a").keep("cell", {"value": 1})
    Store(path, origin="b").keep("cell", {"value": 2})
    with path.open("a") as file:
        file.write('{"origin": "a", "na')
    assert Store(path, origin="a").cells == {"cell": {"value": 1}}
    assert Store(path, origin="a", fresh=True).cells == {}


def times(**milliseconds: float) -> dict[str, object]:
    return {"variants": {name: {"cpu_ms": 2 * ms, "wall_ms": ms} for name, ms in milliseconds.items()}}


def test_a_goal_is_met_by_the_ratio_of_the_clock_that_counts() -> None:
    cell = times(peer=100.0, fp32=50.0, bf16=19.0)
    cell["variants"]["bf16"]["wall_ms"] = 25.0  # type: ignore[index]
    cells = {Workload().name: cell}
    on_cpu = {(row.name, row.variant): row for row in goals.rows(cells, device="cpu")}
    assert on_cpu["bart-base: RAG-Token greedy", "fp32"].value == 2.0
    assert on_cpu["bart-base: RAG-Token greedy", "fp32"].is_met is False
    assert on_cpu["bart-base: RAG-Token greedy", "bf16"].is_met is True
    on_gpu = {row.variant: row for row in goals.rows(cells, device="cuda")}
    assert (on_gpu["bf16"].value, on_gpu["bf16"].is_met, on_gpu["fp32"].is_met) == (4.0, False, None)


def test_distances_to_a_floor_and_costs_are_met_from_below() -> None:
    part = {"ours_ms": 15.0, "floor_ms": 10.0}
    floor = {variant: {"encode": part, "step": part} for variant in ("fp32", "bf16")}
    hop = {"cpu_ms": {"forward": 0.6, "answer": 1.0, "sent": 0.025, "relayed": 0.05}}
    rows = goals.rows({"floor bart-base": floor, "gateway hop": hop}, device="cpu")
    assert [row.is_met for row in rows] == [False, True, True, True, False, True, False]


def test_the_page_on_performance_is_what_the_results_say() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.render()
