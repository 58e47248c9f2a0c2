import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from evaluation.comparison import compare
from evaluation.datasets import Target
from evaluation.results import Result, Run
from evaluation.tables import print_comparison


def result(name, text, flags=(True, False)):
    return Result(name, f"q{name}?", Target.STRINGS, ("Paris",), text=text, is_answered=bool(text),
                  gold_flags=list(flags), num_gold=1)  # fmt: skip


def run(*results, **settings):
    return Run({"depth": 5, **settings}, results)


BEFORE = run(result("1", "Paris"), result("2", "Rome"), result("3", "Rome", [False, True]), model="a")
AFTER = run(result("3", "Paris"), result("2", "Paris"), result("1", ""), model="b")


def test_questions_are_paired_by_id_and_those_gained_and_lost_are_told():
    comparison = compare(BEFORE, AFTER)
    gained = [(each.id, each.before, each.after) for each in comparison.gained]
    assert gained == [("2", "Rome", "Paris"), ("3", "Rome", "Paris")]
    assert [each.id for each in comparison.lost] == ["1"]
    assert comparison.settings == {"model": ("a", "b")}


def test_differences_are_after_minus_before():
    differences = compare(BEFORE, AFTER).differences
    match = differences["exact_match"]
    assert (match.before.value, match.after.value, match.change.value) == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    assert match.change.low <= 1 / 3 <= match.change.high
    assert match.p_value == pytest.approx(1.0)
    assert differences["recall@1"].change.value == pytest.approx(1 / 3)
    assert differences["recall@5"].p_value == 1.0


def test_a_clear_difference_has_a_small_p_value_and_an_interval_without_zero():
    before = run(*(result(str(i), "Rome" if i % 2 else "Paris") for i in range(40)))
    after = run(*(result(str(i), "Paris") for i in range(40)))
    match = compare(before, after).differences["exact_match"]
    assert match.p_value < 0.001
    assert match.change.low > 0


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (run(*AFTER.results[:2]), "1 are in the first alone, 0 in the second alone"),
        (run(*AFTER.results[:2], replace(AFTER.results[2], golds=("London",))), "'1' has another text or known answer"),
        (run(*AFTER.results[:2], replace(AFTER.results[2], question="?")), "'1' has another text or known answer"),
    ],
)
def test_runs_over_different_questions_are_refused(after, why):
    with pytest.raises(ValueError, match=why):
        compare(BEFORE, after)


def test_a_comparison_is_written_as_json_and_as_tables():
    comparison = compare(BEFORE, AFTER)
    assert json.loads(comparison.to_json())["gained"][0]["question"] == "q2?"
    screen = io.StringIO()
    print_comparison(comparison, Console(file=screen, width=140))
    assert "model: a → b" in screen.getvalue()
    assert "+33.3" in screen.getvalue()
    assert "gained: 2" in screen.getvalue()
