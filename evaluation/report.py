"""What a run's results say: metrics with confidence intervals, slices, calibration, latency. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.calibration import Calibration, measure_calibration
from evaluation.datasets import check_tags
from evaluation.estimates import Estimate, bootstrap
from evaluation.results import Result, Run
from evaluation.retrieval import hit_at, recall_at
from evaluation.scores import is_right, score

DEFAULT_DEPTH = 20
PERCENTILES = (50, 90, 95, 99)
THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(10))
MAX_SLICES = 20  # Of a tag.
OTHERS = "(others)"
_SLICE_METRICS = ("f1", "recall@5", "answer_recall@5")


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
        counts: Questions, answerable, unanswerable, abstentions of both, errors, answers from the gateway's cache.
        metrics: Answer quality over answerable questions, retrieval quality over questions with gold or answers.
        recall_curve: Recall for k = 1, 2, …: by gold passage ("recall"), by answer string ("answer_recall").
        slices: Tag → value → metric; "right" is exact match, accuracy, or abstention where that is right.
        calibration: Of the confidence, over the answers given; None without any.
        latency_seconds: Stage → percentile → seconds; "answer" is what the client saw.
        thresholds: What each confidence threshold would give on these answers.
        provenance: The distinct artefacts that answered; more than one means that the system changed during the run.
    """

    settings: Mapping[str, Any]
    counts: Mapping[str, int]
    metrics: Mapping[str, Estimate]
    recall_curve: Mapping[str, Sequence[float]]
    slices: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    calibration: Calibration | None
    latency_seconds: Mapping[str, Mapping[str, float]]
    thresholds: Sequence[Threshold]
    provenance: Sequence[Mapping[str, Any]]

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def make_report(run: Run, *, slice_by: Sequence[str] = ()) -> Report:
    """Sums up a run's results. A question whose call failed counts as wrong.

    Args:
        run: The results.
        slice_by: Tags; by default those whose values come twice or more on average.

    Raises:
        ValueError: No question has a tag that is asked for.
    """
    results, depth = run.results, int(run.settings.get("depth", DEFAULT_DEPTH))
    answered = [result for result in results if result.is_answered]
    scores = [score(result, depth=depth) for result in results]
    return Report(
        settings=run.settings,
        counts=_counts(results),
        metrics=_means(scores),
        recall_curve=_recall_curve(results, depth),
        slices=_slices(results, scores, slice_by or _recurring_tags(results)),
        calibration=measure_calibration([each.confidence for each in answered], [is_right(each) for each in answered]),
        latency_seconds=_latencies([result for result in results if not result.error]),
        thresholds=[_at_threshold(results, threshold) for threshold in THRESHOLDS],
        provenance=_distinct([result.provenance for result in results if not result.error]),
    )


def _counts(results: Sequence[Result]) -> dict[str, int]:
    answerable = [result for result in results if result.is_answerable]
    unanswerable = [result for result in results if not result.is_answerable]
    return {
        "questions": len(results),
        "answerable": len(answerable),
        "answerable_abstained": _num_abstained(answerable),
        "unanswerable": len(unanswerable),
        "unanswerable_abstained": _num_abstained(unanswerable),
        "errors": sum(bool(result.error) for result in results),
        "from_cache": sum(result.from_cache for result in results),
    }


def _num_abstained(results: Sequence[Result]) -> int:
    return sum(not result.is_answered and not result.error for result in results)


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    names = dict.fromkeys(name for each in scores for name in each)
    return {name: bootstrap([each[name] for each in scores if name in each]) for name in names}


def _recall_curve(results: Sequence[Result], depth: int) -> dict[str, list[float]]:
    by_gold = [(each.gold_flags, each.num_gold) for each in results if each.gold_flags is not None]
    by_answer = [each.answer_flags for each in results if each.answer_flags is not None]
    curves = {}
    if by_gold:
        curves["recall"] = [float(np.mean([recall_at(f, k, n) for f, n in by_gold])) for k in range(1, depth + 1)]
    if by_answer:
        curves["answer_recall"] = [float(np.mean([hit_at(f, k) for f in by_answer])) for k in range(1, depth + 1)]
    return curves


def _recurring_tags(results: Sequence[Result]) -> list[str]:
    """Those whose values come twice or more on average: an address that each question has for itself is none."""
    values: dict[str, list[str]] = {}
    for result in results:
        for tag, value in result.tags.items():
            values.setdefault(tag, []).append(value)
    return [tag for tag, each in values.items() if 2 * len(set(each)) <= len(each)]


def _slices(
    results: Sequence[Result], scores: Sequence[Mapping[str, float]], tags: Sequence[str]
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """By tag and value, the most frequent value first; what is rarer than the first `MAX_SLICES` is one slice."""
    check_tags(results, tags)
    slices: dict[str, dict[str, dict[str, Estimate]]] = {}
    for tag in tags:
        frequent = [value for value, _ in Counter(each.tags[tag] for each in results if tag in each.tags).most_common()]
        members: dict[str, list[dict[str, float]]] = {value: [] for value in frequent[:MAX_SLICES]}
        for result, values in zip(results, scores, strict=True):
            if tag in result.tags:
                chosen = {"right": is_right(result)} | {n: values[n] for n in _SLICE_METRICS if n in values}
                members.setdefault(result.tags[tag] if result.tags[tag] in members else OTHERS, []).append(chosen)
        slices[tag] = {value: _means(each) for value, each in members.items()}
    return slices


def _latencies(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    series = {"answer": [result.latency_seconds for result in results]}
    for result in results:
        for stage, seconds in result.stage_seconds.items():
            series.setdefault(stage, []).append(seconds)
    return {
        stage: {f"p{percentile}": float(np.percentile(values, percentile)) for percentile in PERCENTILES}
        for stage, values in series.items()
        if values
    }


def _at_threshold(results: Sequence[Result], threshold: float) -> Threshold:
    answerable = [result for result in results if result.is_answerable]
    unanswerable = [result for result in results if not result.is_answerable]
    answered = [result for result in answerable if _stays(result, threshold)]
    return Threshold(
        min_confidence=threshold,
        answered=_ratio(len(answered), len(answerable)),
        exact_match_of_answered=_ratio(sum(map(is_right, answered)), len(answered)),
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
