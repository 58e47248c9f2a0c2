"""The rows of the result: each number against its peer and its goal, read from the cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.retriever import engines
from benchmarks.retriever.cells import LARGE, SMALL, SMALL_QUANTISED, engine_name, search_name
from benchmarks.retriever.data import Corpus

Cells = Mapping[str, Mapping[str, Any]]
_NAMES = {SMALL: "100k vectors, exact", SMALL_QUANTISED: "100k vectors, quantised", LARGE: "1M vectors"}


@dataclass(frozen=True, slots=True)
class Row:
    """Ours against a peer. `ratio` is how many times better ours is, or their difference in `unit`."""

    name: str
    peer: str
    unit: str
    peer_value: float | None
    ours_value: float
    ratio: float
    kind: Literal["times", "difference"]
    goal: float | None
    recall: float | None = None
    peer_recall: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.kind == "times" else self.ratio <= self.goal

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return {**asdict(self), "is_met": self.is_met}


def rows(cells: Cells) -> list[Row]:
    """Every row whose cell has been measured."""
    found: list[Row] = []
    for peer in ("transformers", "sentence-transformers"):
        found += _encode_rows(peer, cells.get(f"encode, {peer}", {"rows": []}))
    for corpus in (SMALL, SMALL_QUANTISED, LARGE):
        if cell := cells.get(search_name(corpus)):
            found += _search_rows(corpus, cell)
    for name in engines.ENGINES:
        if (theirs := cells.get(engine_name(name))) and (ours := cells.get(search_name(SMALL_QUANTISED))):
            found += _engine_rows(name, theirs, ours)
    return found


def _encode_rows(peer: str, cell: Mapping[str, Any]) -> Iterator[Row]:
    for row in cell["rows"]:
        goal = row["goal"] if peer == "transformers" else None
        name, times = f"encode {row['name']}, {row['dtype']}, CPU", (row["peer_ms"], row["ours_ms"], row["ratio"])
        yield Row(name, f"{peer}, float32", "ms", *times, "times", goal)


def _search_rows(corpus: Corpus, cell: Mapping[str, Any]) -> Iterator[Row]:
    raw, beside, recalls = cell["raw"], cell["beside"], (cell["recall"], cell["raw"]["recall"])
    one, many = cell["loads"]
    single, batch, name = raw["one_by_one"], raw["batch_of_8"], _NAMES[corpus]
    is_judged = corpus is LARGE

    def times(what: str, peer: str, unit: str, theirs: float, ours: float, goal: float | None) -> Row:
        ratio = ours / theirs if unit == "queries/s" else theirs / ours
        judged = goal if is_judged else None
        return Row(f"{name}: {what}", peer, unit, theirs, ours, round(ratio, 3), "times", judged, *recalls)

    yield times(
        "16 callers, CPU of the server", "raw FAISS, batches of 8", "ms", batch["cpu_ms"], many["server_cpu_ms"], 0.8
    )
    yield times(
        "16 callers, CPU of the server", "raw FAISS one by one", "ms", single["cpu_ms"], many["server_cpu_ms"], None
    )
    yield times("16 callers, throughput", "raw FAISS one by one", "queries/s", single["queries_per_second"],
                many["queries_per_second"], 1.0)  # fmt: skip
    yield times(
        "1 caller, CPU of the server", "raw FAISS one by one", "ms", single["cpu_ms"], one["server_cpu_ms"], None
    )
    overhead = round(beside["service_p50_ms"] - beside["peer_p50_ms"], 3)
    yield Row(f"{name}: 1 caller, p50", "raw FAISS, in turns", "ms", beside["peer_p50_ms"], beside["service_p50_ms"],
              overhead, "difference", 1.0 if is_judged else None, *recalls)  # fmt: skip
    if is_judged:
        seconds = round(cell["restart"]["ready_seconds"], 2)
        yield Row(f"{name}: restart until ready", "", "s", None, seconds, seconds, "difference", 5.0)


def _engine_rows(name: str, theirs: Mapping[str, Any], cell: Mapping[str, Any]) -> Iterator[Row]:
    """Another engine, called in its own process, against our whole service, at the same recall."""
    one, many = cell["loads"]
    recalls, what = (cell["recall"], theirs["recall"]), _NAMES[SMALL_QUANTISED]
    for count, peer, ours in (("1 caller", theirs["one_by_one"], one), ("16 callers", theirs["concurrent"], many)):
        cpu, rate = peer["cpu_ms"], peer["queries_per_second"]
        yield Row(f"{what}: {count}, CPU", f"{name} in process", "ms", cpu, ours["server_cpu_ms"],
                  round(cpu / ours["server_cpu_ms"], 3), "times", None, *recalls)  # fmt: skip
        yield Row(f"{what}: {count}, throughput", f"{name} in process", "queries/s", rate, ours["queries_per_second"],
                  round(ours["queries_per_second"] / rate, 3), "times", None, *recalls)  # fmt: skip
