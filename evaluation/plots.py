"""The plots of a report as SVG text. matplotlib (the extra `report`) is imported when the first one is drawn."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_INCHES = (4.6, 3.2)
_NUM_LATENCY_BINS = 40
_BLUE, _ORANGE, _GREY = "#2563eb", "#ea7317", "#94a3b8"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # Text stays text: small, searchable, in the reader's own font.
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def recall_curve(curves: Mapping[str, Sequence[float]]) -> str:
    """Recall over k, by gold passage and by answer string."""
    names = {"recall": ("gold passage found", _BLUE), "answer_recall": ("a passage holds an answer", _ORANGE)}

    def draw(axes: "Axes") -> None:
        for name, values in curves.items():
            label, color = names[name]
            axes.plot(range(1, len(values) + 1), values, marker=".", label=label, color=color)
        axes.set(xlabel="k", ylabel="recall@k", ylim=(0, 1.02))
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="lower right")

    return _svg(draw)


def reliability(calibration: Calibration) -> str:
    """Share of right answers over confidence, with the number of answers in each bin."""

    def draw(axes: "Axes") -> None:
        bins = calibration.bins
        axes.bar([each.low for each in bins], [each.right for each in bins], 0.1, align="edge", color=_BLUE, alpha=0.75)
        axes.plot([0, 1], [0, 1], "--", color=_GREY)
        axes.plot([each.mean_confidence for each in bins], [each.right for each in bins], ".", color=_ORANGE)
        for each in bins:
            axes.annotate(f"{each.num}", (each.low + 0.05, each.right + 0.02), ha="center", fontsize=7)
        axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1.1))

    return _svg(draw)


def risk_coverage(calibration: Calibration) -> str:
    """Share of wrong answers over the share of questions answered, the most confident first."""

    def draw(axes: "Axes") -> None:
        points = calibration.risk_coverage
        axes.plot([each.coverage for each in points], [each.risk for each in points], color=_BLUE)
        axes.axhline(points[-1].risk, linestyle="--", color=_GREY)
        axes.set(xlabel="coverage", ylabel="risk (share wrong)", xlim=(0, 1.02), ylim=(0, None))

    return _svg(draw)


def latency_histogram(seconds: Sequence[float]) -> str:
    """How many answers took how long; the slowest hundredth is in the last bar."""

    def draw(axes: "Axes") -> None:
        p50, p99 = (1000 * float(value) for value in np.percentile(seconds, (50, 99)))
        axes.hist([min(1000 * each, p99) for each in seconds], bins=_NUM_LATENCY_BINS, color=_BLUE, alpha=0.75)
        axes.axvline(p50, linestyle="--", color=_ORANGE, label=f"p50 {p50:.0f} ms")
        axes.axvline(p99, linestyle=":", color=_ORANGE, label=f"p99 {p99:.0f} ms")
        axes.set(xlabel="latency of an answer, ms", ylabel="questions", xlim=(0, None))
        axes.legend(loc="upper right")

    return _svg(draw)


def _svg(draw: Callable[["Axes"], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        draw(figure.add_subplot())
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    return written.getvalue()
