"""The confidence fit recovers a known model, says how far off it is, and what abstaining costs."""

import gzip
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.calibration import expected_calibration_error
from training.generator import open_book
from training.generator.calibrate import calibrate
from training.generator.calibration import (
    cross_validated,
    fit_logistic,
    threshold_losing,
)
from training.generator.calibration_cases import WHOLE, Case, KnownPassage, read_cases
from training.generator.open_book import Answered, OpenBook, answer_all
from training.generator.pool import HELD_OUT_RATIO, hash_unit


def test_the_fit_recovers_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, 2)) * [1.0, 10.0] + [0.0, 5.0]
    chance = 1 / (1 + np.exp(-(features @ np.array([1.5, -0.05]) + 0.3)))
    fit = fit_logistic(features, (rng.random(len(chance)) < chance).astype(np.float64))
    assert fit.weights == pytest.approx((1.5, -0.05), abs=0.1)
    assert fit.bias == pytest.approx(0.3, abs=0.1)
    assert expected_calibration_error(fit.predict(features), chance) < 0.02


def test_separable_examples_still_give_finite_weights() -> None:
    fit = fit_logistic(np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0.0, 0.0, 1.0, 1.0]), ridge=1e-3)
    assert np.isfinite(fit.weights).all()
    assert fit.predict(np.array([[1.0]]))[0] > 0.9


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    assert expected_calibration_error(np.full(10, 0.9), np.array([1.0] * 6 + [0.0] * 4)) == pytest.approx(0.3)


def test_cross_validation_never_sees_another_variant_of_the_question() -> None:
    rng = np.random.default_rng(0)
    groups = [f"q{i // 2}" for i in range(200)]
    labels = np.repeat(rng.integers(0, 2, 100), 2).astype(np.float64)
    names_of_questions = np.repeat(np.eye(100), 2, axis=0)
    leaking = cross_validated(names_of_questions, labels, [str(i) for i in range(200)])
    honest = cross_validated(names_of_questions, labels, groups)
    assert np.abs(leaking - labels).mean() < np.abs(honest - labels).mean() - 0.1


def test_a_threshold_is_the_highest_that_spares_the_right_answers() -> None:
    probabilities = np.array([0.05, 0.11, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.91, 0.92, 0.02])
    labels = np.array([1.0] * 10 + [0.0])
    assert threshold_losing(probabilities, labels, ratio=0.0) == pytest.approx(0.05)
    assert threshold_losing(probabilities, labels, ratio=0.1) == pytest.approx(0.11)


def test_what_is_fitted_names_its_features_and_what_its_thresholds_cost() -> None:
    rng = np.random.default_rng(0)
    examples = []
    for number in range(400):
        value = float(rng.normal())
        is_right = bool(rng.random() < 1 / (1 + np.exp(-3 * value)))
        examples.append(Answered(f"q{number}/gold/x", "gold", is_right, {"max_score": value, "max_prior": 0.5}))
    fitted = calibrate(examples, ("max_score",), min_confidence=0.05)
    assert fitted["features"] == ["max_score"]
    assert fitted["weights"][0] > 1
    quality = fitted["cross_validated"]
    assert quality["auc"] > 0.8
    assert quality["thresholds"][0]["min_confidence"] == fitted["min_confidence"] == 0.05
    assert quality["thresholds"][-1]["right_abstained"] == pytest.approx(0.1, abs=0.02)
    assert quality["thresholds"][-1]["wrong_abstained"] > 0.3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two small sets with one held-out passage each."""

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        path = tmp_path / f"{name}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))

    ids = [f"t{number}" for number in range(400)]
    held_out = next(name for name in ids if hash_unit(name) < HELD_OUT_RATIO)
    trained = next(name for name in ids if hash_unit(name) >= HELD_OUT_RATIO)
    passages = [{"id": name, "title": "Article", "text": name} for name in (held_out, trained, "dev-1")]
    write("squad-open/passages", passages)
    questions = [{"id": f"q-{name}", "question": "?", "answers": ["x"], "passage_id": name} for name in ids]
    questions = [row for row in questions if row["passage_id"] in (held_out, trained)]
    write("squad-open/questions_train", questions)
    write("squad-open/questions_train_unanswerable", [{**row, "id": "u", "answers": []} for row in questions])
    write("squadshifts/new_wiki_passages", [])
    write("squadshifts/new_wiki_questions", [])
    web = [{"id": f"w{number}", "question": "?", "answers": ["x"]} for number in range(400)]
    write("webquestions/trainmodel", web)
    return tmp_path


def test_only_held_out_questions_are_asked_with_and_without_their_passage(data: Path) -> None:
    collections, cases = read_cases(data)
    assert {passage.id for passage in collections[WHOLE]} | {"dev-1"} == {
        row["id"] for row in _rows(data / "squad-open/passages.jsonl.gz")
    }
    own = [case for case in cases if case.kind in ("gold", "no-passage", "no-article")]
    (passage,) = {case.id.partition("/")[0].removeprefix("q-") for case in own}
    assert hash_unit(passage) < HELD_OUT_RATIO
    assert [case.kind for case in own].count("gold") == 2
    (hiding,) = (case for case in own if case.kind != "gold")
    assert passage in hiding.hidden
    assert len({case.id for case in cases}) == len(cases)
    assert read_cases(data)[1] == cases
    for case in own:
        if case.kind == "gold":
            assert passage in {each.id for each in collections[case.collection]}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_an_interrupted_run_asks_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class FakeBook:
        async def fill(self, collection: str, passages: Any, *, like: str = "") -> None: ...

        async def ask(self, case: Case) -> Answered | None:
            if case.id == "breaks" and "breaks" not in asked:
                asked.append(case.id)
                raise KeyboardInterrupt
            asked.append(case.id)
            return None if case.id == "empty" else Answered(case.id, case.kind, True, {"max_score": 1.0})

    @asynccontextmanager
    async def opened(*arguments: Any, **options: Any) -> Any:
        yield FakeBook()

    monkeypatch.setattr(open_book.OpenBook, "opened", opened)
    cases = [Case(name, "gold", "all", "?", ("x",)) for name in ("a", "b", "breaks", "empty", "c")]
    with pytest.raises(KeyboardInterrupt):
        answer_all(cases, {"all": []}, tmp_path)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "brea')
    answers = answer_all(cases, {"all": []}, tmp_path)
    assert [answer.id for answer in answers] == ["a", "b", "breaks", "c"]
    assert asked == ["a", "b", "breaks", "breaks", "empty", "c"]


@pytest.mark.slow
async def test_a_hidden_passage_is_not_read(tmp_path: Path) -> None:
    passages = [
        KnownPassage("paris", "France", "Paris is the capital of France."),
        KnownPassage("rome", "Italy", "Rome is the capital of Italy."),
    ]
    cases = [
        Case("seen", "gold", "all", "What is the capital of France?", ("Paris",)),
        Case("hidden", "no-passage", "all", "What is the capital of France?", ("Paris",), ("paris",)),
    ]
    async with OpenBook.opened("default", tmp_path, num_threads=1) as book:
        await book.fill("all", passages)
        seen, hidden = [await book.ask(case) for case in cases]
    assert seen is not None
    assert hidden is not None
    assert (seen.is_right, hidden.is_right) == (True, False)
    assert seen.features["log_probability"] > hidden.features["log_probability"]
    assert hidden.features["prior_entropy"] == 0.0
