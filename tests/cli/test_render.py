import dataclasses
import io
import math
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
from rich.console import Console

from cli.render import print_answer, snippet, to_plain
from rag_client import Answer, FinishReason, Hypothesis, Provenance, StageTiming


class Color(StrEnum):
    RED = "red"


def marked(text: str, answer: str, max_chars: int = 60) -> tuple[str, list[str]]:
    shown = snippet(text, answer, max_chars)
    return shown.plain, [shown.plain[span.start : span.end] for span in shown.spans]


def test_the_answer_is_highlighted_wherever_it_stands_as_a_word() -> None:
    assert marked("Paris, not Parisian: PARIS.", "paris") == ("Paris, not Parisian: PARIS.", ["Paris", "PARIS"])


def test_a_long_passage_is_cut_around_the_answer() -> None:
    plain, found = marked("x " * 100 + "the Los  Angeles\nDodgers won " + "y " * 100, "Los Angeles Dodgers")
    assert found == ["Los Angeles Dodgers"]
    assert plain.startswith("…")
    assert plain.endswith("…")
    assert len(plain) == 62


def test_without_the_answer_the_beginning_is_shown() -> None:
    assert marked("One two three.", "four") == ("One two three.", [])
    assert marked("One " * 50, "")[0].startswith("One One")


def test_values_become_plain_json() -> None:
    value = {
        "timing": StageTiming("total", 0.5),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "vector": np.array([1.0, 2.0], np.float32),
        "color": Color.RED,
        "never": -math.inf,
        "error": ValueError("bad"),
    }
    assert to_plain(value) == {
        "timing": {"stage": "total", "duration_seconds": 0.5},
        "when": "2026-01-02T00:00:00+00:00",
        "vector": [1.0, 2.0],
        "color": "red",
        "never": None,
        "error": "bad",
    }


def printed(**fields: object) -> str:
    console = Console(file=io.StringIO(), width=140)
    answer = Answer(
        answer_id="a",
        text="Paris",
        raw_text="paris",
        finish_reason=FinishReason.END_OF_SEQUENCE,
        log_probability=-0.5,
        confidence=0.8,
        model=None,
        citations=(),
        provenance=Provenance(),
        timings=(),
    )
    print_answer(dataclasses.replace(answer, **fields), console)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_ranked_candidates_are_shown_with_their_scores() -> None:
    ranked = [Hypothesis("Paris", "paris", -0.5, (), 2.0, 1.5), Hypothesis("Lyon", "lyon", -0.25, (), 1.0, 0.75)]
    lines = [line.split() for line in printed(hypotheses=tuple(ranked)).splitlines()]
    assert ["1.500", "-0.500", "2.000", "Paris"] in lines
    assert ["0.750", "-0.250", "1.000", "Lyon"] in lines


def test_unranked_hypotheses_are_not_shown() -> None:
    assert "Lyon" not in printed(hypotheses=(Hypothesis("Lyon", "lyon", -0.25),))


def test_an_answer_says_whether_it_came_from_the_cache() -> None:
    assert "from the cache" in printed(from_cache=True)
    assert "from the cache" not in printed()
