"""What is measured, cell by cell: the goals' corpora, other engines, and the curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.generator import programs
from benchmarks.generator.measuring import load
from benchmarks.retriever import data, engines, service
from benchmarks.retriever.data import Corpus

QUANTISED = "RaBitQfs,Refine(SQfp16)"
TARGET = 0.98  # Recall that every engine is tuned to; the service's default.
SMALL, SMALL_QUANTISED, LARGE = Corpus(100_000), Corpus(100_000, QUANTISED), Corpus(1_000_000)
CURVE = tuple(Corpus(num) for num in (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000))
CALLERS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement, from a working folder and a number of rounds."""

    name: str
    run: Callable[[Path, int], dict[str, Any]]


def main_plan() -> Iterator[Cell]:
    """What the goals need, within minutes."""
    for peer in ("transformers", "sentence-transformers"):
        arguments = [f"--peer={peer}"]
        yield Cell(f"encode, {peer}", lambda _, rounds, given=arguments: programs.measure(
            "benchmarks.query_encoder", f"--rounds={2 * rounds}", *given))  # type: ignore[misc]  # fmt: skip
    for corpus, factory in ((SMALL, "Flat"), (SMALL_QUANTISED, QUANTISED), (LARGE, QUANTISED)):
        yield Cell(search_name(corpus), lambda work, rounds, of=corpus, kind=factory: _search(work, rounds, of, kind))  # type: ignore[misc]
    for name in filter(engines.is_installed, engines.ENGINES):
        yield Cell(engine_name(name), lambda work, _, of=name: _engine(work, of))  # type: ignore[misc]


def curve_plan() -> Iterator[Cell]:
    """The scaling curves."""
    for corpus in CURVE:
        callers = CALLERS if corpus in (SMALL, LARGE) else (1, 16)
        yield Cell(curve_name(corpus), lambda work, _, of=corpus, to=callers: _curve(work, of, to))  # type: ignore[misc]


def search_name(corpus: Corpus) -> str:
    """Of the cell of the service beside raw FAISS."""
    return f"search {corpus.name}"


def engine_name(name: str) -> str:
    """Of an engine's cell."""
    return f"engine {name}, {SMALL.name}"


def curve_name(corpus: Corpus) -> str:
    """Of a corpus's point of the curves."""
    return f"curve {corpus.name}"


def _search(work: Path, rounds: int, corpus: Corpus, factory: str) -> dict[str, Any]:
    """The service and raw FAISS in turns, on an index of all vectors of the same kind and recall."""
    true = data.truth(corpus.num_vectors, work)
    peer = engines.raw_faiss(corpus, work / "faiss", factory)
    raw = engines.measure(peer, true, TARGET, 10 * rounds)
    with service.serving(corpus, work) as (server, starts):
        info = server.describe()
        found = data.recall(service.found_by(server, len(true)), true)
        beside = service.beside(server, peer.tunings[raw["tuning"]], 20 * rounds)
        loads = service.loads(server, (1, 16), num_queries=40 * rounds, rounds=3)
    again = engines.measure(peer, true, TARGET, 10 * rounds)  # The cheaper of before and after counts.
    raw = min(raw, again, key=lambda one: one["one_by_one"]["cpu_ms"])
    return {"index": info.index_kind, "recall": found, "raw": raw, "beside": beside, "loads": loads, **starts,
            "load": load()}  # fmt: skip


def _engine(work: Path, name: str) -> dict[str, Any]:
    build = engines.ENGINES[name][1]
    measured = engines.measure(build(SMALL, work / "engines"), data.truth(SMALL.num_vectors, work), TARGET, 200)
    return {**measured, "load": load()}


def _curve(work: Path, corpus: Corpus, callers: tuple[int, ...]) -> dict[str, Any]:
    true = data.truth(corpus.num_vectors, work)
    with service.serving(corpus, work) as (server, starts):
        found = data.recall(service.found_by(server, len(true)), true)
        loads = service.loads(server, callers, num_queries=256, rounds=2)
        kind = server.describe().index_kind
    return {"index": kind, "recall": found, "loads": loads, **starts, "load": load()}
