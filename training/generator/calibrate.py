"""``python -m training.generator.calibrate``: fit a checkpoint's ``confidence.json``.

Confidence is the probability that an answer is right. It is fitted on questions held out of training, answered end to
end: hybrid retrieval over knowledge bases that hold the answer, or do not (`calibration_cases`), then RAG-Sequence.
Right is an exact match with a gold answer; without the gold passage that happens seldom, and counts as well.

The answers are kept in the work folder with the value of every feature that the service knows, so that an interrupted
run goes on where it was, and other features can be fitted (``--features``) without asking again.

The advised threshold (``--min-confidence``) is a cautious one by default: rather no answer than one that is wrong 199
times of 200. What higher ones cost and spare is reported by cross-validation.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from evaluation.calibration import area_under_curve, expected_calibration_error
from generator_service.confidence import FEATURES
from training.generator.calibration import (
    Floats,
    cross_validated,
    fit_logistic,
    threshold_losing,
)
from training.generator.calibration_cases import read_cases
from training.generator.open_book import Answered, answer_all
from training.runtime.flags import add_data_flag

DEFAULT_FEATURES = ("log_probability", "no_answer_in_cited", "no_answer", "prior_entropy", "posterior_entropy")
MIN_CONFIDENCE = 0.005
LOST_RATIOS = (0.01, 0.02, 0.05, 0.1)


def calibrate(examples: Sequence[Answered], features: tuple[str, ...], *, min_confidence: float) -> dict[str, Any]:
    """The contents of ``confidence.json``: the fit on all examples, with cross-validated quality beside it."""
    values = np.array([[example.features[name] for name in features] for example in examples])
    labels = np.array([float(example.is_right) for example in examples])
    predicted = cross_validated(values, labels, [example.question for example in examples])
    fit = fit_logistic(values, labels)
    thresholds = [min_confidence, *(threshold_losing(predicted, labels, ratio=ratio) for ratio in LOST_RATIOS)]
    quality = {
        "num_examples": len(labels),
        "num_questions": len({example.question for example in examples}),
        "right_ratio": float(labels.mean()),
        "auc": area_under_curve(predicted[labels == 1].tolist(), predicted[labels == 0].tolist()),
        "expected_calibration_error": expected_calibration_error(predicted, labels),
        "brier": float(((predicted - labels) ** 2).mean()),
        "brier_of_base_rate": float(labels.mean() * (1 - labels.mean())),
        "thresholds": [_trade(predicted, labels, each) for each in thresholds],
    }
    return {
        "features": list(features),
        "weights": list(fit.weights),
        "bias": fit.bias,
        "min_confidence": min_confidence,
        "cross_validated": quality,
    }


def _trade(predicted: Floats, labels: Floats, threshold: float) -> dict[str, float]:
    """What abstaining below a threshold costs and spares."""
    return {
        "min_confidence": threshold,
        "right_abstained": float((predicted[labels == 1] < threshold).mean()),
        "wrong_abstained": float((predicted[labels == 0] < threshold).mean()),
    }


def main(arguments: list[str] | None = None) -> None:
    """Fit, and write ``confidence.json`` into the folder named."""
    parser = argparse.ArgumentParser(prog="python -m training.generator.calibrate", description=__doc__)
    parser.add_argument("--checkpoint", default="default", help='folder of a checkpoint, or "default"')
    parser.add_argument("--out", type=Path, required=True, help="folder that gets confidence.json")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps knowledge bases and answers")
    add_data_flag(parser)
    parser.add_argument("--limit", type=int, default=None, help="number of questions; default: all")
    parser.add_argument("--features", nargs="+", choices=tuple(FEATURES), default=DEFAULT_FEATURES)
    parser.add_argument("--min-confidence", type=float, default=MIN_CONFIDENCE, help="the threshold to advise")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    flags = parser.parse_args(arguments)
    collections, cases = read_cases(flags.data)
    examples = answer_all(
        cases[: flags.limit],
        collections,
        flags.work,
        checkpoint=flags.checkpoint,
        num_threads=flags.threads,
    )
    confidence = (
        json.dumps(calibrate(examples, tuple(flags.features), min_confidence=flags.min_confidence), indent=2) + "\n"
    )
    (flags.out / "confidence.json").write_text(confidence, encoding="utf-8")
    Console().print_json(confidence)


if __name__ == "__main__":
    main()
