"""Scaling curves as SVG: milliseconds per question against one size at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.generator.cells import CURVES, point
from benchmarks.generator.goals import Cells

_LABELS = {"peer": "transformers", "fp32": "ours, float32", "bf16": "ours, bfloat16"}
_COLOURS = {"peer": "#888888", "fp32": "#1f77b4", "bf16": "#d95f02"}
Points = list[tuple[int, float]]


def curves(cells: Cells, clock: str) -> dict[str, dict[str, Points]]:
    """Axis -> variant -> (size, milliseconds per question), for what has been measured."""
    found: dict[str, dict[str, Points]] = {}
    for axis, (_, _, values, _) in CURVES.items():
        for value in values:
            sized = point(axis, value)
            for variant, times in cells.get(sized.name, {}).get("variants", {}).items():
                if variant in _LABELS:
                    points = found.setdefault(axis, {}).setdefault(variant, [])
                    points.append((value, times[clock] / sized.num_questions))
    return found


def draw(axis: str, lines: Mapping[str, Points], folder: Path) -> Path:
    """Writes one plot; equal numbers give an equal file."""
    import matplotlib  # Of the group `bench`; reading the numbers needs it not.

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "rag", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
    for variant, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", ms=4, color=_COLOURS[variant], label=_LABELS[variant])
    ticks = sorted({size for points in lines.values() for size, _ in points})
    axes.set(xscale="log", yscale="log", xlabel=axis, ylabel="CPU ms per question")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    path = folder / f"generator-{axis.replace(' ', '-')}.svg"
    metadata: dict[str, Any] = {"Date": None}
    figure.savefig(path, metadata=metadata)
    plt.close(figure)
    return path
