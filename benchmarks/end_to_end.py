"""`python -m benchmarks.end_to_end sample|squad`: answer and retrieval quality through the gateway, from nothing.

Starts the three services, ingests the passages, asks every question and writes benchmarks/results/<name>.json.
Results are kept question by question in the work folder, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.machine import RESULTS, ROOT, describe
from cli.running import running_services
from evaluation.datasets import lines_of
from evaluation.report import make_report
from evaluation.run import EvaluationSettings, evaluate
from evaluation.tables import print_report
from rag_client import AnswerOptions, RagClient

SHARED_DATA = Path(os.environ.get("RAG_SHARED_DATA", ROOT.parent / "shared" / "data"))


def main() -> None:
    """Runs one evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["sample", "squad"])
    parser.add_argument("--limit", type=int, default=0, help="a random part of so many questions (default: all)")
    parser.add_argument("--callers", type=int, default=4, help="questions under way at once (%(default)s)")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--model", default="rag-sequence", choices=["rag-sequence", "rag-token"])
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".scratch" / "end-to-end", help="services' data and results"
    )
    arguments = parser.parse_args()
    folder = arguments.work / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    passages, questions = _inputs(arguments.name, arguments.limit, folder)
    options = AnswerOptions(collection=arguments.name, top_k=arguments.top_k, model=arguments.model.replace("-", "_"))
    with running_services(folder / "data") as gateway:
        subprocess.run([sys.executable, "-m", "cli", "ingest", str(passages), "--collection", arguments.name,
                        "--address", gateway], cwd=ROOT, check=True)  # fmt: skip
        with RagClient(gateway) as client:
            num_passages = client.describe_collection(arguments.name).num_passages
        results = folder / f"results-{arguments.model}-{arguments.top_k}.jsonl"
        settings = EvaluationSettings(
            questions, results, target=gateway, options=options, concurrency=arguments.callers
        )
        report = make_report(evaluate(settings))
    print_report(report, Console())
    if report.counts["errors"]:
        raise SystemExit(f"{report.counts['errors']} questions failed: see {results}")
    written = {
        **describe(),
        "num_passages": num_passages,
        "num_callers": arguments.callers,
        "setting": f"{arguments.model}, hybrid retrieval, {arguments.top_k} passages",
        "report": asdict(report),
    }
    suffix = "" if arguments.model == "rag-sequence" else f"-{arguments.model}"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}{suffix}.json").write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")


def _inputs(name: str, limit: int, folder: Path) -> tuple[Path, Path]:
    if name == "sample":
        return ROOT / "examples" / "sample_kb", ROOT / "examples" / "sample_questions" / "questions.jsonl"
    data = SHARED_DATA / "squad-open"
    if not limit:
        return data / "passages.jsonl.gz", data / "questions_dev.jsonl.gz"
    chosen = random.Random(0).sample(list(lines_of(data / "questions_dev.jsonl.gz")), limit)
    questions = folder / f"questions-{limit}.jsonl"
    questions.write_text("".join(chosen), encoding="utf-8")
    return data / "passages.jsonl.gz", questions


if __name__ == "__main__":
    main()
