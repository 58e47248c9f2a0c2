"""`python -m benchmarks.confidence`: does the confidence tell right from wrong, and better than retrieval's score does?

Asks the default generator over the knowledge bases as the system does (`training.generator.open_book`): SQuAD dev
questions over all passages, some with their passage or their whole article hidden and some of SQuAD 2.0's impossible
ones, and the sample questions. Compares, on the same answers, the confidence with the two scores one could take a
threshold on instead: that of the best passage, and log p(y|x). Writes benchmarks/results/confidence.json and the
risk-coverage curves, docs/images/confidence.svg. Answers are kept in the work folder; an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.machine import RESULTS, ROOT, describe
from evaluation.calibration import area_under_curve, expected_calibration_error
from generator_service.confidence import Confidence
from ingestion.files import find_files
from ingestion.reading import ReadOptions, read_passages
from training.generator.calibration_cases import Case, KnownPassage
from training.generator.open_book import Answered, answer_all
from training.generator.pool import read_json_lines

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Scores = Mapping[str, Floats]

SHARED_DATA = Path(os.environ.get("RAG_SHARED_DATA", ROOT.parent / "shared" / "data"))
CONFIDENCE = ROOT / "default_model" / "generator" / "confidence.json"
NUM_RESAMPLES = 2000
KEPT_RATIOS = (0.99, 0.95, 0.9)  # Of the right answers; each score gets the very threshold that keeps so many.
KINDS = ("gold", "no-passage", "gold", "no-article", "gold")
RIVALS = {"log_probability": "log p(y|x)", "max_score": "score of the best passage"}


def squad_cases(data: Path, limit: int) -> tuple[dict[str, list[KnownPassage]], list[Case]]:
    """SQuAD dev: half the questions as they are, a third without their passage or article, a sixth impossible ones."""
    passages = [KnownPassage(r["id"], r["title"], r["text"]) for r in read_json_lines(data / "passages.jsonl.gz")]
    title_of = {each.id: each.title for each in passages}
    article = {title: tuple(p.id for p in passages if p.title == title) for title in set(title_of.values())}
    num_impossible = limit // 6
    draw = random.Random(1)
    rows = draw.sample(list(read_json_lines(data / "questions_dev.jsonl.gz")), limit - num_impossible)
    impossible = draw.sample(list(read_json_lines(data / "questions_dev_unanswerable.jsonl.gz")), num_impossible)
    cases = []
    for i, row in enumerate(rows):
        kind = KINDS[i % len(KINDS)]
        own = row["passage_id"]
        hidden = {"gold": (), "no-passage": (own,), "no-article": article[title_of[own]]}[kind]
        cases.append(Case(row["id"], kind, "squad", row["question"], tuple(row["answers"]), hidden))
    cases += [Case(row["id"], "impossible", "squad", row["question"], ()) for row in impossible]
    draw.shuffle(cases)
    return {"squad": passages}, cases


def sample_cases() -> tuple[dict[str, list[KnownPassage]], list[Case]]:
    """The sample knowledge base with its 100 answerable and 20 unanswerable questions."""
    files, _ = find_files([ROOT / "examples" / "sample_kb"])
    passages = [
        KnownPassage(passage.id, passage.title, passage.text)
        for file in files
        for passage in read_passages(file.path, file.source, ReadOptions())
    ]
    questions = ROOT / "examples" / "sample_questions" / "questions.jsonl"
    rows = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    cases = [
        Case(row["id"], "gold" if row["answers"] else "absent", "sample", row["question"], tuple(row["answers"]))
        for row in rows
    ]
    return {"sample": passages}, cases


def report(answers: Sequence[Answered], confidence: Confidence, thresholds: Sequence[float]) -> dict[str, Any]:
    """How well each score tells right from wrong, with 95 % bootstrap intervals, and what thresholds do."""
    right = np.array([answer.is_right for answer in answers])
    answerable = np.array([answer.kind == "gold" for answer in answers])
    scores = {"confidence": np.array([confidence.of(answer.features) for answer in answers])}
    scores |= {name: np.array([answer.features[name] for answer in answers]) for name in RIVALS}
    return {
        "num_questions": len(answers),
        "num_answerable": int(answerable.sum()),
        "right_ratio": float(right.mean()),
        "expected_calibration_error": expected_calibration_error(scores["confidence"], right.astype(np.float64)),
        **_intervals(scores, right),
        "min_confidence": [_abstaining(scores["confidence"], right, answerable, each) for each in (0.0, *thresholds)],
        "keeping_of_right": {
            str(kept): {
                name: _abstaining(each, right, answerable, float(np.quantile(each[right], 1 - kept, method="lower")))
                for name, each in scores.items()
            }
            for kept in KEPT_RATIOS
        },
        "risk_at_coverage": {name: _risk_at_coverage(each, right) for name, each in scores.items()},
    }


def _abstaining(score: Floats, right: Flags, answerable: Flags, threshold: float) -> dict[str, float]:
    """What abstaining below a threshold does."""
    answered = score >= threshold
    return {
        "threshold": threshold,
        "exact_match": float((right & answered)[answerable].mean()),
        "right_of_answered": float(right[answered].mean()),
        "right_abstained": float((~answered)[right].mean()),
        "wrong_abstained": float((~answered)[~right].mean()),
        "answerable_abstained": float((~answered)[answerable].mean()),
        "unanswerable_abstained": float((~answered)[~answerable].mean()),
    }


def _intervals(scores: Scores, right: Flags) -> dict[str, Any]:
    """AUC (higher is better) and area under the risk-coverage curve (lower), each with what confidence gains on it."""
    draw = np.random.default_rng(0)
    samples = [draw.integers(0, len(right), len(right)) for _ in range(NUM_RESAMPLES)]
    results: dict[str, Any] = {}
    for metric, measure in {"auc": _auc, "risk": _mean_risk}.items():
        resampled = {name: np.array([measure(each[s], right[s]) for s in samples]) for name, each in scores.items()}
        results[metric] = {name: _interval(measure(each, right), resampled[name]) for name, each in scores.items()}
        ours = measure(scores["confidence"], right)
        results[f"{metric}_of_confidence_minus"] = {
            name: _interval(ours - measure(scores[name], right), resampled["confidence"] - resampled[name])
            for name in RIVALS
        }
    return results


def _interval(value: float, resampled: Floats) -> dict[str, float]:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def _auc(score: Floats, right: Flags) -> float:
    return area_under_curve(score[right].tolist(), score[~right].tolist())


def _risks(score: Floats, right: Flags) -> Floats:
    """The share of wrong answers among the n surest, for every n."""
    wrong = ~right[np.argsort(-score, kind="stable")]
    return np.asarray(wrong.cumsum() / np.arange(1, len(wrong) + 1), dtype=np.float64)


def _mean_risk(score: Floats, right: Flags) -> float:
    return float(_risks(score, right).mean())


def _risk_at_coverage(score: Floats, right: Flags) -> list[float]:
    """At coverages of 5, 10, … 100 %."""
    risks = _risks(score, right)
    return [round(float(risks[max(0, round(len(risks) * step / 20) - 1)]), 4) for step in range(1, 21)]


def plot(reports: Mapping[str, Any]) -> str:
    """The risk-coverage curves as an SVG picture, one panel for each set of questions."""
    width, height, left, top = 360, 260, 46, 28
    colours = {"confidence": "#0b6", "log_probability": "#36c", "max_score": "#c33"}
    labels = {"confidence": "confidence", **RIVALS}
    parts = []
    for column, (title, values) in enumerate(reports.items()):
        x0 = left + column * (width + 60)
        highest = max(max(curve) for curve in values["risk_at_coverage"].values())
        parts.append(f'<text x="{x0}" y="{top - 12}" font-weight="bold">{title}</text>')
        parts.append(f'<path d="M{x0} {top}V{top + height}H{x0 + width}" fill="none" stroke="#888"/>')
        for share in (0.0, 0.5, 1.0):
            y = top + height * (1 - share)
            parts.append(f'<text x="{x0 - 6}" y="{y + 4:.0f}" text-anchor="end">{share * highest:.2f}</text>')
            parts.append(
                f'<text x="{x0 + width * share:.0f}" y="{top + height + 16}" text-anchor="middle">{share:.0%}</text>'
            )
        for row, (name, curve) in enumerate(values["risk_at_coverage"].items()):
            points = [
                f"{x0 + width * (i + 1) / len(curve):.1f},{top + height * (1 - risk / highest):.1f}"
                for i, risk in enumerate(curve)
            ]
            parts.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{colours[name]}" stroke-width="2"/>'
            )
            y = top + height - 44 + 16 * row
            parts.append(
                f'<text x="{x0 + width - 6}" y="{y}" text-anchor="end" fill="{colours[name]}">{labels[name]}</text>'
            )
        parts.append(
            f'<text x="{x0 + width / 2:.0f}" y="{top + height + 34}" text-anchor="middle">'
            "questions answered, the surest first; upwards: share of wrong answers</text>"
        )
    size = f'width="{left + len(reports) * (width + 60)}" height="{top + height + 44}"'
    style = '<rect width="100%" height="100%" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">{style}'
    return f"{head}{''.join(parts)}</svg>\n"


def main() -> None:
    """Asks what is not asked yet, and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=900, help="SQuAD questions (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=ROOT / ".scratch" / "confidence")
    arguments = parser.parse_args()
    confidence, written = Confidence.load(CONFIDENCE), json.loads(CONFIDENCE.read_text(encoding="utf-8"))
    thresholds = [each["min_confidence"] for each in written["cross_validated"]["thresholds"]]
    reports = {}
    for title, (passages, cases) in {
        "SQuAD, 5,203 passages": squad_cases(SHARED_DATA / "squad-open", arguments.limit),
        "Sample knowledge base": sample_cases(),
    }.items():
        work = arguments.work / next(iter(passages))
        answers = answer_all(cases, passages, work, num_threads=arguments.threads)
        reports[title] = report(answers, confidence, thresholds)
        possible = [answer for answer in answers if answer.kind != "impossible"]
        if len(possible) < len(answers):
            reports[f"{title}, without the impossible"] = report(possible, confidence, thresholds)
    RESULTS.mkdir(exist_ok=True)
    result = json.dumps({**describe(), "features": list(confidence.features), "sets": reports}, indent=2) + "\n"
    (RESULTS / "confidence.json").write_text(result, encoding="utf-8")
    (ROOT / "docs" / "images" / "confidence.svg").write_text(plot(reports), encoding="utf-8")
    Console().print_json(result)


if __name__ == "__main__":
    main()
