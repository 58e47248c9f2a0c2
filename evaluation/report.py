"""What a run's results say: metrics with confidence intervals, as a table and as JSON. Pure but for printing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from evaluation.results import Result
from evaluation.retrieval import hit_at, ndcg_at, precision_at, recall_at, reciprocal_rank

RECALL_DEPTHS = (1, 5, 20)
PERCENTILES = (50, 95, 99)
THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(10))
NUM_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `num` questions with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    num: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a confidence threshold would give: shares in [0, 1], None over no questions."""

    min_confidence: float
    answered: float | None
    exact_match_of_answered: float | None
    unanswerable_abstained: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything measured. Metrics are shares in [0, 1]; times are in seconds.

    Attributes:
        settings: Of the run.
        counts: Questions, answerable, unanswerable, abstentions of both, errors.
        metrics: Answer quality over answerable questions, retrieval quality over questions with gold or answers.
        by_kind: Exact match by kind of question (for unanswerable ones: the share abstained).
        latency_seconds: Stage → percentile → seconds.
        thresholds: What each confidence threshold would give on these answers.
        provenance: The distinct artefacts that answered; more than one means that the system changed during the run.
    """

    settings: Mapping[str, Any]
    counts: Mapping[str, int]
    metrics: Mapping[str, Estimate]
    by_kind: Mapping[str, Estimate]
    latency_seconds: Mapping[str, Mapping[str, float]]
    thresholds: Sequence[Threshold]
    provenance: Sequence[Mapping[str, Any]]

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def make_report(results: Sequence[Result], settings: Mapping[str, Any]) -> Report:
    """Sums up a run's results. A question whose call failed counts as wrong."""
    answerable = [result for result in results if result.is_answerable]
    unanswerable = [result for result in results if not result.is_answerable]
    kinds = sorted({result.kind for result in results if result.kind})
    succeeded = [result for result in results if not result.error]
    return Report(
        settings=settings,
        counts={
            "questions": len(results),
            "answerable": len(answerable),
            "answerable_abstained": _num_abstained(answerable),
            "unanswerable": len(unanswerable),
            "unanswerable_abstained": _num_abstained(unanswerable),
            "errors": len(results) - len(succeeded),
        },
        metrics={name: bootstrap(values) for name, values in _metric_values(answerable, succeeded).items() if values},
        by_kind={kind: bootstrap([_score(result) for result in results if result.kind == kind]) for kind in kinds},
        latency_seconds=_latencies(succeeded),
        thresholds=[_at_threshold(answerable, unanswerable, threshold) for threshold in THRESHOLDS],
        provenance=_distinct([result.provenance for result in succeeded]),
    )


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean with its percentile bootstrap interval; reproducible.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    sample = np.asarray(values, np.float64)
    generator = np.random.default_rng(seed)
    means = [sample[generator.integers(0, sample.size, sample.size)].mean() for _ in range(NUM_RESAMPLES)]
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(sample.mean()), float(low), float(high), int(sample.size))


def print_report(report: Report, console: Console) -> None:
    """Writes the report as tables."""
    metrics = Table("metric", "value", "95 % interval", "questions", title="Quality")
    for name, estimate in report.metrics.items():
        _add_estimate(metrics, name, estimate)
    for kind, estimate in report.by_kind.items():
        _add_estimate(metrics, f"right: {kind}", estimate)
    console.print(metrics)
    thresholds = Table("min_confidence", "answered", "EM of answered", "unanswerable abstained", title="Thresholds")
    for each in report.thresholds:
        shares = (each.answered, each.exact_match_of_answered, each.unanswerable_abstained)
        thresholds.add_row(
            f"{each.min_confidence:.1f}", *("–" if share is None else _percent(share) for share in shares)
        )
    console.print(thresholds)
    latency = Table("stage", *(f"p{percentile}" for percentile in PERCENTILES), title="Latency, ms")
    for stage, percentiles in report.latency_seconds.items():
        latency.add_row(stage, *(f"{1000 * seconds:.0f}" for seconds in percentiles.values()))
    console.print(latency)
    console.print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.counts.items()))


def _metric_values(answerable: Sequence[Result], succeeded: Sequence[Result]) -> dict[str, list[float]]:
    gold = [(result.gold_flags, result.num_gold) for result in succeeded if result.gold_flags is not None]
    strings = [result.answer_flags for result in succeeded if result.answer_flags is not None]
    values = {
        "exact_match": [result.exact_match for result in answerable],
        "f1": [result.f1 for result in answerable],
    }
    for k in RECALL_DEPTHS:
        values[f"recall@{k}"] = [recall_at(flags, k, num_gold) for flags, num_gold in gold]
    values["precision@5"] = [precision_at(flags, 5) for flags, _ in gold]
    values["mrr"] = [reciprocal_rank(flags) for flags, _ in gold]
    values["ndcg@10"] = [ndcg_at(flags, 10, num_gold) for flags, num_gold in gold]
    for k in RECALL_DEPTHS:
        values[f"answer_recall@{k}"] = [hit_at(flags, k) for flags in strings]
    return values


def _score(result: Result) -> float:
    return result.exact_match if result.is_answerable else float(not result.is_answered and not result.error)


def _num_abstained(results: Sequence[Result]) -> int:
    return sum(not result.is_answered and not result.error for result in results)


def _latencies(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    series = {"answer": [result.latency_seconds for result in results]}
    for stage in ("retrieve", "generate"):
        series[stage] = [result.stage_seconds[stage] for result in results if stage in result.stage_seconds]
    return {
        stage: {f"p{percentile}": float(np.percentile(values, percentile)) for percentile in PERCENTILES}
        for stage, values in series.items()
        if values
    }


def _at_threshold(answerable: Sequence[Result], unanswerable: Sequence[Result], threshold: float) -> Threshold:
    answered = [result for result in answerable if _stays(result, threshold)]
    return Threshold(
        min_confidence=threshold,
        answered=_ratio(len(answered), len(answerable)),
        exact_match_of_answered=_ratio(sum(result.exact_match for result in answered), len(answered)),
        unanswerable_abstained=_ratio(
            sum(not result.error and not _stays(result, threshold) for result in unanswerable), len(unanswerable)
        ),
    )


def _stays(result: Result, threshold: float) -> bool:
    return result.is_answered and result.confidence >= threshold


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _distinct(provenances: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({json.dumps(each, sort_keys=True): each for each in provenances if each}.values())


def _add_estimate(table: Table, name: str, estimate: Estimate) -> None:
    interval = f"{_percent(estimate.low)} to {_percent(estimate.high)}"
    table.add_row(name.replace("_", " "), _percent(estimate.value), interval, str(estimate.num))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
