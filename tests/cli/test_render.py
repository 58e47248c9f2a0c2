import math
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np

from cli.render import snippet, to_plain
from rag_client import StageTiming


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
