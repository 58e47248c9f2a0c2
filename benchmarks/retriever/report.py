"""The retriever's part of docs/performance.md, and its plots, from the result file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.retriever.cells import CURVE, LARGE, SMALL, curve_name

_HEAD = """## Retrieval

Clustered synthetic vectors of 384 dimensions, the same for all, the first 10 of each query; recall@10 is measured
against exact search, and other engines are tuned to 0.98 or the next that they reach. Ours is the whole service, over
gRPC; raw FAISS is one index of the same kind in one thread, called directly, and other engines are called in
process, too. CPU of the client is not counted. Client and service share the cores."""
_AXES = {"vectors": "milliseconds a query", "callers": "queries a second"}


def sections(results: Path) -> Iterator[str]:
    """Paragraphs of the page; none without a result."""
    path = results / "retriever_cpu.json"
    if not path.exists():
        return
    result = json.loads(path.read_text(encoding="utf-8"))
    machine, loads = result["machine"], [cell["load"] for cell in result["cells"].values()]
    judged = [row for row in result["rows"] if row["is_met"] is not None]
    yield _HEAD
    yield (
        f"{machine['processor']}, {machine['cores']} cores; commit {result['commit']}; `{result['command']}`; load of "
        f"the machine meanwhile {min(loads)} to {max(loads)}.{' ' + result['note'] if 'note' in result else ''}"
        + (f" Not installed: {', '.join(result['not_installed'])}." if result["not_installed"] else "")
    )
    yield "\n".join(_table(result["rows"]))
    yield f"{sum(row['is_met'] for row in judged)} of {len(judged)} goals met."
    for axis, lines in curves(result["cells"]).items():
        yield f"![by {axis}](images/retriever-{axis}.svg)"
        yield "\n".join(_curve_table(axis, lines))


def curves(cells: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Axis -> line -> points, for what has been measured."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    there = {corpus: cells[curve_name(corpus)] for corpus in CURVE if curve_name(corpus) in cells}
    for corpus, cell in there.items():
        by_callers = {int(load["callers"]): load for load in cell["loads"]}
        for callers in (1, 16):
            line = found.setdefault("vectors", {}).setdefault(f"CPU, {callers} at once", [])
            line.append((corpus.num_vectors, by_callers[callers]["server_cpu_ms"]))
        line = found["vectors"].setdefault("p50, 1 at once", [])
        line.append((corpus.num_vectors, by_callers[1]["p50_ms"]))
        if corpus in (SMALL, LARGE):
            points = [(callers, load["queries_per_second"]) for callers, load in by_callers.items()]
            found.setdefault("callers", {})[f"{corpus.num_vectors:,} vectors"] = points
    return found


def draw(results: Path, folder: Path) -> None:
    """Writes the plots; equal numbers give equal files."""
    path = results / "retriever_cpu.json"
    if not path.exists():
        return
    import matplotlib  # Of the group `bench`; reading the numbers needs it not.

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "rag", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    for axis, lines in curves(json.loads(path.read_text(encoding="utf-8"))["cells"]).items():
        figure, axes = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
        for label, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=label)
        ticks = sorted({size for points in lines.values() for size, _ in points})
        axes.set(xscale="log", yscale="log", xlabel=axis, ylabel=_AXES[axis])
        axes.set_xticks(ticks, [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)
        metadata: dict[str, Any] = {"Date": None}
        figure.savefig(folder / f"retriever-{axis}.svg", metadata=metadata)
        plt.close(figure)


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| | peer | peer | ours | recall (peer) | value | goal | |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        theirs = "" if row["peer_value"] is None else f"{row['peer_value']:,.4g} {row['unit']}"
        recalls = "" if row["recall"] is None else f"{row['recall']:.3f} ({row['peer_recall']:.3f})"
        is_times = row["kind"] == "times"
        value = f"{row['ratio']:.2f}×" if is_times else f"{row['ratio']:+.2f} {row['unit']}" if theirs else ""
        goal = "" if row["goal"] is None else f"≥ {row['goal']}×" if is_times else f"≤ {row['goal']} {row['unit']}"
        verdict = {True: "met", False: "**missed**", None: ""}[row["is_met"]]
        ours = f"{row['ours_value']:,.4g} {row['unit']}"
        yield f"| {row['name']} | {row['peer']} | {theirs} | {ours} | {recalls} | {value} | {goal} | {verdict} |"


def _curve_table(axis: str, lines: Mapping[str, list[tuple[int, float]]]) -> Iterator[str]:
    yield f"| {axis} | {' | '.join(f'{label}, {_AXES[axis]}' for label in lines)} |"
    yield "|---" * (len(lines) + 1) + "|"
    values = {label: dict(points) for label, points in lines.items()}
    for size in sorted({size for points in lines.values() for size, _ in points}):
        cells = (f"{points[size]:,.4g}" if size in points else "" for points in values.values())
        yield f"| {size:,} | {' | '.join(cells)} |"
