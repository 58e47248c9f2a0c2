"""The retriever's benchmark reads its rows and curves from cells, and tunes every engine to one recall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retriever import data, engines, goals, report
from benchmarks.retriever.cells import LARGE, SMALL_QUANTISED, curve_name, engine_name, search_name


def times(cpu_ms: float) -> dict[str, float]:
    return {"cpu_ms": cpu_ms, "p50_ms": cpu_ms, "queries_per_second": 1000 / cpu_ms}


def load(callers: int, cpu_ms: float) -> dict[str, float]:
    return {"callers": callers, "server_cpu_ms": cpu_ms, "p50_ms": 2 * cpu_ms, "queries_per_second": 2000 / cpu_ms}


def search_cell(raw_ms: float, ours_ms: float, service_p50_ms: float) -> dict[str, Any]:
    raw = {"recall": 0.98, "one_by_one": times(raw_ms), "batch_of_8": times(raw_ms), "concurrent": times(raw_ms)}
    beside = {"peer_p50_ms": raw_ms, "service_p50_ms": service_p50_ms}
    loads, restart = [load(1, ours_ms), load(16, ours_ms)], {"ready_seconds": 4.0}
    return {"recall": 0.99, "raw": raw, "beside": beside, "loads": loads, "restart": restart, "load": 0.5}


def test_goals_are_judged_at_a_million_vectors_by_ratio_and_by_difference() -> None:
    rows = {(row.name, row.peer): row for row in goals.rows({search_name(LARGE): search_cell(6.0, 7.0, 6.9)})}
    shared = rows["1M vectors: 16 callers, CPU of the server", "raw FAISS, batches of 8"]
    assert (shared.ratio, shared.is_met, shared.recall, shared.peer_recall) == (0.857, True, 0.99, 0.98)
    alone = rows["1M vectors: 1 caller, p50", "raw FAISS, in turns"]
    assert (alone.ratio, alone.is_met) == (0.9, True)
    assert rows["1M vectors: restart until ready", ""].is_met is True
    slow = goals.rows({search_name(LARGE): search_cell(6.0, 8.0, 7.1)})
    assert [row.is_met for row in slow if row.goal is not None] == [False, True, False, True]
    small = goals.rows({search_name(SMALL_QUANTISED): search_cell(0.5, 1.0, 9.0)})
    assert {row.is_met for row in small} == {None}


def test_other_engines_stand_beside_the_whole_service() -> None:
    theirs = {"recall": 1.0, "one_by_one": times(4.0), "concurrent": times(2.0)}
    cells = {search_name(SMALL_QUANTISED): search_cell(0.5, 1.0, 2.0), engine_name("hnswlib"): theirs}
    rows = {row.name: row for row in goals.rows(cells) if row.peer == "hnswlib in process"}
    assert rows["100k vectors, quantised: 1 caller, CPU"].ratio == 4.0
    assert rows["100k vectors, quantised: 16 callers, throughput"].ratio == 4.0


def test_an_engine_looks_no_further_than_the_recall_wants() -> None:
    true = np.arange(20).reshape(2, 10)
    asked = []

    def search(share: int) -> engines.Search:
        def find(vectors: Any) -> Any:
            asked.append(share)
            return np.where(np.arange(10) < share, true[: len(vectors)], -1) if len(vectors) <= 2 else vectors

        return find

    engine = engines.Engine(1.0, {str(share): search(share) for share in (5, 9, 10)})
    measured = engines.measure(engine, true, 0.9, 2)
    assert (measured["tuning"], measured["recall"]) == ("9", 0.9)
    assert 10 not in asked
    assert engines.measure(engine, true, 1.1, 2)["recall"] == 1.0  # What it reaches at most.


def test_vectors_are_the_same_in_every_run_and_queries_are_none_of_them() -> None:
    corpus = data.Corpus(15_000)
    (first, one), (second, other) = corpus.batches()
    assert (first, second, len(one), len(other)) == (0, 10_000, 10_000, 5_000)
    assert np.array_equal(one, data.make_vectors(0, 10_000))
    assert (one @ data.queries(3).T).max() < 0.99


def test_the_page_shows_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    assert list(report.sections(tmp_path)) == []
    curve = {"recall": 1.0, "loads": [load(1, 5.0), load(4, 4.0), load(16, 3.0)], "load": 1.5}
    cells = {search_name(LARGE): search_cell(6.0, 7.0, 6.9), curve_name(LARGE): curve}
    rows = [row.as_json() for row in goals.rows(cells)]
    written = {"machine": {"processor": "X", "cores": 2}, "commit": "abc", "command": "python -m benchmarks.retriever",
               "not_installed": ["LanceDB"], "rows": rows, "cells": cells}  # fmt: skip
    (tmp_path / "retriever_cpu.json").write_text(json.dumps(written))
    page = "\n\n".join(report.sections(tmp_path))
    assert "1 caller, p50 | raw FAISS, in turns | 6 ms | 6.9 ms | 0.990 (0.980) | +0.90 ms | ≤ 1.0 ms | met |" in page
    assert "4 of 4 goals met." in page
    assert "Not installed: LanceDB." in page
    assert "images/retriever-vectors.svg" in page
    assert "| 1,000,000 | 5 | 3 | 10 |" in page
    assert "| 16 | 666.7 |" in page
