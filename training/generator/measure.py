"""``python -m training.generator.measure``: scores of a checkpoint given the gold passage.

Exact match and F1 as the official SQuAD script computes them, raw and with the surface restored, and how well the
probability of the empty answer separates answerable from unanswerable questions.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from evaluation.answers import exact_match, f1
from evaluation.calibration import area_under_curve
from training.generator.answering import Answered, Answerer, Asked
from training.generator.pool import read_json_lines
from training.runtime.flags import add_data_flag

SETS = {
    "squad-dev": ("squad-open/passages.jsonl.gz", "squad-open/questions_dev.jsonl.gz"),
    "squad-dev-unanswerable": ("squad-open/passages.jsonl.gz", "squad-open/questions_dev_unanswerable.jsonl.gz"),
    "nq-oracle": ("nq-oracle/passages.jsonl.gz", "nq-oracle/questions_dev.jsonl.gz"),
}


@dataclass(frozen=True, slots=True)
class GoldQuestion:
    """A question with its gold passage and gold answers (none when it is unanswerable)."""

    asked: Asked
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Scores in percent over ``n`` questions."""

    n: int
    exact_match_raw: float
    f1_raw: float
    exact_match: float
    f1: float
    questions_per_second: float


def read_questions(data: Path, name: str, *, limit: int | None, seed: int = 0) -> list[GoldQuestion]:
    """The questions of set ``name`` below ``data``, or a fixed random ``limit`` of them.

    Raises:
        KeyError: no such set.
    """
    passages_file, questions_file = SETS[name]
    passages = {row["id"]: row for row in read_json_lines(data / passages_file)}
    questions = []
    for row in read_json_lines(data / questions_file):
        passage = passages[row["passage_id"] if "passage_id" in row else row["passage_ids"][0]]
        asked = Asked(row["question"], passage["title"], passage["text"])
        questions.append(GoldQuestion(asked, tuple(row["answers"])))
    if limit is None or limit >= len(questions):
        return questions
    chosen = np.random.default_rng(seed).permutation(len(questions))[:limit]
    return [questions[index] for index in sorted(chosen)]


def score(questions: Sequence[GoldQuestion], answered: Sequence[Answered], *, seconds: float) -> AnswerScores:
    """Mean exact match and F1 of ``answered``, one for each of ``questions``."""
    golds = [question.answers for question in questions]

    def percent(values: list[float]) -> float:
        return 100 * float(np.mean(values))

    return AnswerScores(
        n=len(questions),
        exact_match_raw=percent([exact_match(a.raw, g) for a, g in zip(answered, golds, strict=True)]),
        f1_raw=percent([f1(a.raw, g) for a, g in zip(answered, golds, strict=True)]),
        exact_match=percent([exact_match(a.text, g) for a, g in zip(answered, golds, strict=True)]),
        f1=percent([f1(a.text, g) for a, g in zip(answered, golds, strict=True)]),
        questions_per_second=len(questions) / seconds,
    )


def measure(
    checkpoint: Path, data: Path, *, limit: int | None, sets: Sequence[str], against: Path | None
) -> dict[str, object]:
    """All scores of ``checkpoint``, as plain values for JSON; ``against`` adds the share of answers both give alike."""
    answerer = Answerer.load(checkpoint)
    report: dict[str, object] = {}
    answerable: dict[str, list[float]] = {}
    rival = None if against is None else Answerer.load(against)
    for name in sets:
        questions = read_questions(data, name, limit=limit)
        started = time.monotonic()
        answered = answerer.answer([question.asked for question in questions])
        answerable[name] = [1 - answer.empty_probability for answer in answered]
        if any(question.answers for question in questions):
            report[name] = asdict(score(questions, answered, seconds=time.monotonic() - started))
            if rival is not None:
                others = rival.answer([question.asked for question in questions])
                alike = [one.text == other.text for one, other in zip(answered, others, strict=True)]
                report[f"{name}/against"] = asdict(score(questions, others, seconds=1.0))
                report[f"{name}/identical_ratio"] = float(np.mean(alike))
    if {"squad-dev", "squad-dev-unanswerable"} <= set(sets):
        report["answerable_auc"] = area_under_curve(answerable["squad-dev"], answerable["squad-dev-unanswerable"])
    return report


def main(arguments: list[str] | None = None) -> None:
    """Measure a checkpoint and print the report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m training.generator.measure", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a Hugging Face checkpoint")
    add_data_flag(parser)
    parser.add_argument("--limit", type=int, default=None, help="a fixed random sample of each set; default: all")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=tuple(SETS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--against", type=Path, default=None, help="another checkpoint to compare answers with")
    flags = parser.parse_args(arguments)
    torch.set_num_threads(flags.threads)
    report = measure(flags.checkpoint, flags.data, limit=flags.limit, sets=flags.sets, against=flags.against)
    Console().print_json(json.dumps(report))


if __name__ == "__main__":
    main()
