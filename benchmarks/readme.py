"""`python -m benchmarks.readme`: copies the numbers of benchmarks/results into the README; `--check` only compares."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, ROOT

README = ROOT / "README.md"
START, END = "<!-- numbers -->", "<!-- /numbers -->"
TITLES = {
    "sample": "Sample knowledge base",
    "sample-rag-token": "The same with RAG-Token, which streams",
    "squad": "SQuAD, all passages as the knowledge base",
}
MIN_CONFIDENCE = 0.1  # What the text on abstention names.
METRICS = {
    "exact_match": "EM",
    "f1": "F1",
    "recall@1": "recall@1",
    "recall@5": "recall@5",
    "recall@20": "recall@20",
    "mrr": "MRR",
}


def render(results: Path = RESULTS) -> str:
    """The README's numbers, from the result files that are there."""
    parts = []
    for name, title in TITLES.items():
        path = results / f"{name}.json"
        if path.exists():
            parts.append(_end_to_end(title, json.loads(path.read_text())))
    path = results / "default_model.json"
    if path.exists():
        parts.append(_default_model(json.loads(path.read_text())))
    path = results / "generator_cpu.json"
    if path.exists():
        parts.append(_generator(json.loads(path.read_text())))
    return "\n\n".join(parts)


def with_numbers(text: str, numbers: str) -> str:
    """The README's text with everything between the markers replaced.

    Raises:
        ValueError: When a marker is missing.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"README.md lacks {START} or {END}")
    return f"{before}{START}\n{numbers}\n{END}{after}"


def main() -> None:
    """Rewrites the README, or with `--check` exits with 1 when it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    text = README.read_text()
    current = with_numbers(text, render())
    if arguments.check:
        sys.exit("README.md's numbers are out of date: run python -m benchmarks.readme" if text != current else 0)
    README.write_text(current)


def _end_to_end(title: str, result: Mapping[str, Any]) -> str:
    report, machine = result["report"], result["machine"]
    counts, metrics = report["counts"], report["metrics"]
    head = (
        f"**{title}** ({result['num_passages']:,} passages; {counts['answerable']:,} answerable and "
        f"{counts['unanswerable']:,} unanswerable questions; end to end through the gateway, default model, "
        f"{result['setting']})"
    )
    names = [name for name in METRICS if name in metrics]
    rows = [
        "| " + " | ".join(METRICS[name] for name in names) + " | p50 | p95 |",
        "|" + "---|" * (len(names) + 2),
        "| "
        + " | ".join(_share(metrics[name]) for name in names)
        + "".join(f" | {1000 * report['latency_seconds']['answer'][p]:.0f} ms" for p in ("p50", "p95"))
        + " |",
    ]
    abstained = _abstention(report) if counts["unanswerable"] else ""
    where = (
        f"{machine['processor']}, {machine['cores']} cores, {result['num_callers']} callers; commit {result['commit']}."
    )
    note = f" {result['note']}" if "note" in result else ""
    return "\n".join([head, "", *rows, "", f"{abstained}{where}{note}"])


def _abstention(report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    at = next(each for each in report["thresholds"] if each["min_confidence"] == MIN_CONFIDENCE)
    dropped, lost, right = at["unanswerable_abstained"], 1 - at["answered"], at["exact_match_of_answered"]
    return (
        f"By default it abstains on {counts['unanswerable_abstained']} of the {counts['unanswerable']} unanswerable "
        f"questions; with `min_confidence` {MIN_CONFIDENCE} on {100 * dropped:.0f} % of them and on {100 * lost:.0f} % "
        f"of the answerable ones, and {100 * right:.0f} % of the answers given are right. "
    )


def _share(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['value']:.1f} ({100 * estimate['low']:.1f}–{100 * estimate['high']:.1f})"


def _default_model(result: Mapping[str, Any]) -> str:
    lines = [
        "**Default generator alone, gold passage given, greedy** (SQuAD's script)",
        "",
        "| questions | weights | EM raw | F1 raw | EM | F1 |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        scores = " | ".join(f"{100 * row[key]:.1f}" for key in ("em_raw", "f1_raw", "em", "f1"))
        lines.append(f"| {row['dataset']} ({row['num_questions']:,}) | {row['weights']} | {scores} |")
    same = result["identical_ratio"]
    lines += [
        "",
        f"{100 * same['squad-dev']:.1f} % of {same['num_questions']:,} answers are the same with either weights.",
    ]
    return "\n".join(lines)


def _generator(result: Mapping[str, Any]) -> str:
    """Ours against transformers in the shape of bart-base, where both precisions have a goal."""
    shape = "bart-base: "
    found: dict[str, dict[str, Any]] = {}
    for row in result["rows"]:
        precision = row["variant"].removesuffix("_cached")
        if row["name"].startswith(shape) and row["unit"] == "x" and row["better"] == "higher" and precision != "plain":
            found.setdefault(row["name"].removeprefix(shape), {})[precision] = row
    judged = [row for row in result["rows"] if row["is_met"] is not None]
    num_met = sum(row["is_met"] for row in judged)
    lines = [
        "**Generation against transformers' RAG models** (random weights in the shape of bart-base, 5 passages of 200 "
        "tokens, CPU time of one thread)",
        "",
        "| | transformers, float32 | float32, same ids | bfloat16 |",
        "|---|---|---|---|",
    ]
    for name, rows in found.items():
        ours = " | ".join(f"{rows[p]['ours_ms']:,.0f} ms ({rows[p]['value']:.1f}×)" for p in ("fp32", "bf16"))
        lines.append(f"| {name} | {rows['fp32']['peer_ms']:,.0f} ms | {ours} |")
    machine = result["machine"]
    lines += [
        "",
        f"{num_met} of {len(judged)} goals are met; [docs/performance.md](docs/performance.md) has them all, with "
        f"scaling curves. {machine['processor']}, {machine['cores']} cores; commit {result['commit']}."
        + (f" {result['note']}" if "note" in result else ""),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
