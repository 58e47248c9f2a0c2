import io
import json

import pytest
from rich.console import Console

from evaluation.report import bootstrap, make_report, print_report
from evaluation.results import Result


def answered(name, em, f1, *, confidence=0.9, latency=0.1, gold=(), strings=(), kind="verbatim"):
    return Result(
        id=name,
        kind=kind,
        is_answerable=True,
        text="x",
        is_answered=True,
        confidence=confidence,
        exact_match=em,
        f1=f1,
        gold_flags=list(gold),
        num_gold=1,
        answer_flags=list(strings),
        latency_seconds=latency,
        stage_seconds={"retrieve": latency / 4, "generate": latency / 2},
        provenance={"generator_digest": "g"},
    )


RESULTS = [
    answered("1", 1.0, 1.0, gold=[True, False], strings=[True, True], latency=0.1),
    answered("2", 0.0, 0.5, gold=[False, True], strings=[False, False], latency=0.3, confidence=0.35),
    Result(id="3", kind="verbatim", is_answerable=True, confidence=0.05, gold_flags=[False, False], num_gold=1,
           answer_flags=[False, True], latency_seconds=0.2, provenance={"generator_digest": "g"}),
    Result(id="4", kind="verbatim", is_answerable=True, error="DeadlineExceeded: late"),
    Result(id="5", kind="unanswerable", is_answerable=False, confidence=0.1),
    Result(id="6", kind="unanswerable", is_answerable=False, text="x", is_answered=True, confidence=0.45),
]  # fmt: skip


def test_answer_quality_is_over_answerable_questions_and_a_failed_call_is_wrong():
    metrics = make_report(RESULTS, {}).metrics
    assert (metrics["exact_match"].value, metrics["exact_match"].num) == (0.25, 4)
    assert metrics["f1"].value == pytest.approx(1.5 / 4)


def test_retrieval_quality_is_over_questions_with_gold():
    metrics = make_report(RESULTS, {}).metrics
    assert metrics["recall@1"].value == pytest.approx(1 / 3)
    assert metrics["recall@5"].value == pytest.approx(2 / 3)
    assert metrics["mrr"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics["precision@5"].value == pytest.approx(2 / 15)
    assert metrics["answer_recall@1"].value == pytest.approx(1 / 3)
    assert metrics["answer_recall@20"].value == pytest.approx(2 / 3)
    assert metrics["recall@5"].num == 3


def test_abstentions_and_errors_are_counted():
    assert make_report(RESULTS, {}).counts == {
        "questions": 6,
        "answerable": 4,
        "answerable_abstained": 1,
        "unanswerable": 2,
        "unanswerable_abstained": 1,
        "errors": 1,
    }


def test_a_kind_is_right_by_exact_match_or_by_abstaining():
    by_kind = make_report(RESULTS, {}).by_kind
    assert by_kind["verbatim"].value == 0.25
    assert by_kind["unanswerable"].value == 0.5


def test_thresholds_tell_what_each_confidence_would_give():
    by_threshold = {each.min_confidence: each for each in make_report(RESULTS, {}).thresholds}
    assert (by_threshold[0.0].answered, by_threshold[0.0].unanswerable_abstained) == (0.5, 0.5)
    assert by_threshold[0.0].exact_match_of_answered == 0.5
    assert (by_threshold[0.4].answered, by_threshold[0.4].exact_match_of_answered) == (0.25, 1.0)
    assert by_threshold[0.5].unanswerable_abstained == 1.0


def test_latency_percentiles_are_of_calls_that_succeeded():
    latency = make_report(RESULTS[:3], {}).latency_seconds
    assert latency["answer"]["p50"] == pytest.approx(0.2)
    assert latency["generate"]["p50"] == pytest.approx(0.1)


def test_each_distinct_provenance_is_listed_once():
    assert make_report(RESULTS, {}).provenance == [{"generator_digest": "g"}]


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_more_questions():
    few, many = bootstrap([0.0, 1.0] * 10), bootstrap([0.0, 1.0] * 1000)
    assert few.value == many.value == 0.5
    assert few.low < many.low < 0.5 < many.high < few.high
    assert bootstrap([0.0, 1.0] * 10) == few
    assert bootstrap([1.0, 1.0]).low == 1.0


def test_a_report_is_written_as_json_and_as_tables():
    report = make_report(RESULTS, {"questions": "q.jsonl"})
    assert json.loads(report.to_json())["metrics"]["exact_match"]["value"] == 0.25
    screen = io.StringIO()
    print_report(report, Console(file=screen, width=120))
    assert "exact match" in screen.getvalue()
    assert "25.0" in screen.getvalue()


def test_a_report_on_nothing_is_empty_and_does_not_fail():
    report = make_report([], {})
    assert report.metrics == {}
    assert report.counts["questions"] == 0
