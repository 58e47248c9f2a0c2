import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from evaluation.datasets import Target
from evaluation.report import MAX_SLICES, OTHERS, make_report
from evaluation.results import Result, Run
from evaluation.tables import print_report


def result(name, text="", *, kind="verbatim", golds=("Paris",), confidence=0.9, latency=0.1, gold=None, strings=None,
           **fields):  # fmt: skip
    return Result(
        name, f"q{name}", Target.STRINGS if golds else Target.NONE, golds, {"kind": kind, "url": f"u{name}"},
        text=text, is_answered=bool(text), confidence=confidence, gold_flags=gold, num_gold=1, answer_flags=strings,
        latency_seconds=latency, stage_seconds={"retrieve": latency / 4, "generate": latency / 2},
        provenance={"generator_digest": "g"}, **fields,
    )  # fmt: skip


RUN = Run(
    {"questions": "q.jsonl", "depth": 20},
    [
        result("1", "Paris", gold=[True, False], strings=[True, True]),
        result("2", "Paris Hilton x", gold=[False, True], strings=[False, False], latency=0.3, confidence=0.35),
        result("3", gold=[False, False], strings=[False, True], latency=0.2, confidence=0.05),
        Result("4", "q4", Target.STRINGS, ("Paris",), {"kind": "verbatim"}, error="DeadlineExceeded: late"),
        result("5", kind="unanswerable", golds=(), confidence=0.1),
        result("6", "x", kind="unanswerable", golds=(), confidence=0.45, from_cache=True),
    ],
)


def test_answer_quality_is_over_answerable_questions_and_a_failed_call_is_wrong():
    metrics = make_report(RUN).metrics
    assert (metrics["exact_match"].value, metrics["exact_match"].num) == (0.25, 4)
    assert metrics["f1"].value == pytest.approx((1 + 0.5) / 4)


def test_retrieval_quality_is_over_questions_with_gold():
    metrics = make_report(RUN).metrics
    assert metrics["recall@1"].value == pytest.approx(1 / 3)
    assert metrics["recall@5"].value == pytest.approx(2 / 3)
    assert metrics["mrr"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics["precision@5"].value == pytest.approx(2 / 15)
    assert metrics["answer_recall@1"].value == pytest.approx(1 / 3)
    assert metrics["answer_recall@20"].value == pytest.approx(2 / 3)
    assert metrics["recall@5"].num == 3


def test_abstentions_and_errors_are_counted():
    assert make_report(RUN).counts == {
        "questions": 6,
        "answerable": 4,
        "answerable_abstained": 1,
        "unanswerable": 2,
        "unanswerable_abstained": 1,
        "errors": 1,
        "from_cache": 1,
    }


def test_a_slice_is_right_by_exact_match_or_by_abstaining():
    slices = make_report(RUN).slices
    assert list(slices["kind"]) == ["verbatim", "unanswerable"]
    assert slices["kind"]["verbatim"]["right"].value == 0.25
    assert slices["kind"]["verbatim"]["recall@5"].num == 3
    assert slices["kind"]["unanswerable"]["right"].value == 0.5
    assert "f1" not in slices["kind"]["unanswerable"]


def test_a_tag_that_hardly_recurs_is_sliced_only_when_asked_for_and_its_rare_values_together():
    many = Run({}, [replace(RUN.results[0], id=str(i), tags={"url": f"u{max(i, 1)}"}) for i in range(MAX_SLICES + 3)])
    assert make_report(many).slices == {}
    by_url = make_report(many, slice_by=["url"]).slices["url"]
    assert next(iter(by_url)) == "u1"
    assert [(name, each["right"].num) for name, each in by_url.items()][-1] == (OTHERS, 2)
    with pytest.raises(ValueError, match="no question has a field 'color'"):
        make_report(many, slice_by=["color"])


def test_the_confidence_is_measured_over_the_answers_given():
    calibration = make_report(RUN).calibration
    assert (calibration.num, calibration.auroc) == (3, 1.0)
    assert make_report(Run({}, RUN.results[3:5])).calibration is None


def test_the_recall_curve_goes_up_to_the_depth_of_the_run():
    curve = make_report(Run({"depth": 3}, RUN.results)).recall_curve
    assert curve["recall"] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert curve["answer_recall"] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert "recall@5" not in make_report(Run({"depth": 3}, RUN.results)).metrics


def test_thresholds_tell_what_each_confidence_would_give():
    by_threshold = {each.min_confidence: each for each in make_report(RUN).thresholds}
    assert (by_threshold[0.0].answered, by_threshold[0.0].unanswerable_abstained) == (0.5, 0.5)
    assert by_threshold[0.0].exact_match_of_answered == 0.5
    assert (by_threshold[0.4].answered, by_threshold[0.4].exact_match_of_answered) == (0.25, 1.0)
    assert by_threshold[0.5].unanswerable_abstained == 1.0


def test_latency_percentiles_are_of_calls_that_succeeded():
    latency = make_report(Run({}, RUN.results[:3])).latency_seconds
    assert latency["answer"]["p50"] == pytest.approx(0.2)
    assert latency["generate"]["p50"] == pytest.approx(0.1)


def test_each_distinct_provenance_is_listed_once():
    assert make_report(RUN).provenance == [{"generator_digest": "g"}]


def test_a_report_is_written_as_json_and_as_tables():
    report = make_report(RUN)
    assert json.loads(report.to_json())["metrics"]["exact_match"]["value"] == 0.25
    screen = io.StringIO()
    print_report(report, Console(file=screen, width=120))
    assert "exact match" in screen.getvalue()
    assert "25.0" in screen.getvalue()


def test_a_report_on_nothing_is_empty_and_does_not_fail():
    report = make_report(Run({}, []))
    assert report.metrics == {}
    assert report.counts["questions"] == 0
