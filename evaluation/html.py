"""A report as one HTML file that opens from disk and loads nothing: tables, plots, and the worst questions."""

import base64
import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation import plots
from evaluation.report import Report
from evaluation.results import Result, Run
from evaluation.scores import is_right

MAX_WORST = 25
MAX_CHARS = 1000  # Of any one text.
_TEMPLATE = "report.html.j2"


def can_draw() -> bool:
    """Whether what draws the plots is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def make_html(run: Run, report: Report) -> str:
    """The report as HTML. Its size is bounded, however many questions there are."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": lambda share: "–" if share is None else f"{100 * share:.1f}",
        "milliseconds": lambda seconds: f"{1000 * seconds:,.0f}",
        "words": lambda name: str(name).replace("_", " "),
        "cut": partial(_cut, max_chars=MAX_CHARS),
    }
    wrong = worst(run.results)
    return environment.get_template(_TEMPLATE).render(
        report=report,
        plots=_plots(run, report),
        worst=wrong[:MAX_WORST],
        num_wrong=len(wrong),
        rank_of_gold=_rank_of_gold,
    )


def worst(results: Sequence[Result]) -> list[Result]:
    """The questions that are not right, the surest answers first: those mislead most. Failed calls come last."""
    wrong = [result for result in results if not is_right(result)]
    return sorted(wrong, key=lambda result: (bool(result.error), not result.is_answered, -result.confidence))


def _plots(run: Run, report: Report) -> dict[str, str]:
    """Caption → data URI of an SVG: as images, they keep their ids and styles to themselves."""
    drawn = {}
    if report.recall_curve:
        drawn["Recall@k"] = plots.recall_curve(report.recall_curve)
    if report.calibration:
        drawn["Reliability: what a confidence is worth (answers in each bin above it)"] = plots.reliability(
            report.calibration
        )
        drawn["Risk–coverage: what answering less often would save"] = plots.risk_coverage(report.calibration)
    seconds = [result.latency_seconds for result in run.results if not result.error]
    if seconds:
        drawn["Latency, as the client saw it (the slowest hundredth in the last bar)"] = plots.latency_histogram(
            seconds
        )
    return {
        caption: f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
        for caption, svg in drawn.items()
    }


def _rank_of_gold(result: Result) -> int | None:
    """1-based rank of the first gold passage in the long retrieval; None when it is not in it."""
    flags = result.gold_flags or []
    return flags.index(True) + 1 if True in flags else None


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[:max_chars] + "…"
