"""Reports and comparisons as tables in a terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.comparison import Changed, Comparison
from evaluation.estimates import Estimate
from evaluation.report import PERCENTILES, Report

MAX_CHANGED = 10


def print_report(report: Report, console: Console) -> None:
    """Writes the report as tables."""
    console.print(_quality({name: each for name, each in report.metrics.items() if "@" not in name}))
    console.print(_rankings({name: each for name, each in report.metrics.items() if "@" in name}))
    for tag, values in report.slices.items():
        console.print(_slice(tag, values))
    console.print(_thresholds(report))
    if report.calibration:
        auroc = "–" if report.calibration.auroc is None else f"{report.calibration.auroc:.3f}"
        console.print(
            f"confidence of {report.calibration.num} answers: calibration error (ECE) {report.calibration.ece:.3f}, "
            f"AUROC {auroc}, area under risk–coverage {report.calibration.area_under_risk_coverage:.3f}"
        )
    latency = Table("stage", *(f"p{percentile}" for percentile in PERCENTILES), title="Latency, ms")
    for stage, percentiles in report.latency_seconds.items():
        latency.add_row(stage, *(f"{1000 * seconds:.0f}" for seconds in percentiles.values()))
    console.print(latency)
    console.print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.counts.items()))
    if len(report.provenance) > 1:
        console.print(f"the system changed during the run: {len(report.provenance)} different ones answered")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Writes the differences of two runs, and the first questions gained and lost."""
    for name, (before, after) in comparison.settings.items():
        console.print(f"{name}: {before} → {after}", markup=False)
    title = f"{comparison.num_questions} questions, second run against the first"
    table = Table("metric", "first", "second", "change", "95 % interval", "p", "questions", title=title)
    for name, each in comparison.differences.items():
        change = each.change
        interval = f"{100 * change.low:+.1f} to {100 * change.high:+.1f}"
        values = (_percent(each.before.value), _percent(each.after.value), f"{100 * change.value:+.1f}")
        table.add_row(name.replace("_", " "), *values, interval, f"{each.p_value:.4f}", str(change.num))
    console.print(table)
    _print_changed("gained", comparison.gained, console)
    _print_changed("lost", comparison.lost, console)


def _print_changed(name: str, questions: Sequence[Changed], console: Console) -> None:
    console.print(f"{name}: {len(questions)}")
    if questions:
        table = Table("question", "expected", "first", "second", box=None, pad_edge=False)
        for each in questions[:MAX_CHANGED]:
            table.add_row(*map(escape, (each.question, " | ".join(each.golds), each.before, each.after)))
        console.print(table)
    if len(questions) > MAX_CHANGED:
        console.print(f"… and {len(questions) - MAX_CHANGED} more: --json has them all")


def _quality(metrics: Mapping[str, Estimate]) -> Table:
    table = Table("metric", "value", "95 % interval", "questions", title="Quality")
    for name, each in metrics.items():
        interval = f"{_percent(each.low)} to {_percent(each.high)}"
        table.add_row(name.replace("_", " "), _percent(each.value), interval, str(each.num))
    return table


def _rankings(metrics: Mapping[str, Estimate]) -> Table:
    """Metrics named "recall@5": one row for each k."""
    columns = list(dict.fromkeys(name.partition("@")[0] for name in metrics))
    table = Table("k", *(name.replace("_", " ") for name in columns), title="Retrieval")
    for k in sorted({int(name.partition("@")[2]) for name in metrics}):
        cells = (metrics.get(f"{column}@{k}") for column in columns)
        table.add_row(str(k), *(_with_interval(each) if each else "" for each in cells))
    return table


def _slice(tag: str, values: Mapping[str, Mapping[str, Estimate]]) -> Table:
    names = list(dict.fromkeys(name for each in values.values() for name in each))
    table = Table(escape(tag), "questions", *(name.replace("_", " ") for name in names), title=f"By {escape(tag)}")
    for value, each in values.items():
        shown = (_percent(each[name].value) if name in each else "–" for name in names)
        table.add_row(escape(value), str(each["right"].num), *shown)
    return table


def _thresholds(report: Report) -> Table:
    table = Table("min_confidence", "answered", "right of answered", "unanswerable abstained", title="Thresholds")
    for each in report.thresholds:
        shares = (each.answered, each.exact_match_of_answered, each.unanswerable_abstained)
        table.add_row(f"{each.min_confidence:.1f}", *("–" if share is None else _percent(share) for share in shares))
    return table


def _with_interval(each: Estimate) -> str:
    return f"{_percent(each.value)} ({_percent(each.low)}–{_percent(each.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
