"""``python -m training.generator.calibrate``: fit a checkpoint's ``confidence.json``.

Confidence is the probability that an answer is right. It is fitted on training questions held out of training, answered
the way the service answers: RAG-Sequence over retrieved passages. Retrieval here is BM25 over the training pool, whose
scores times 0.6 are the prior's logits (the weight BM25 has in the default hybrid score at temperature 1/20); every
fourth question does without its gold passage, so that wrong answers are among the examples.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from transformers.modeling_outputs import BaseModelOutput

from evaluation.answers import exact_match
from generator_service.prompt import PromptFormat
from generator_service.surface import restore_surface
from training.generator.answering import Answerer
from training.generator.negatives import TermIndex
from training.generator.pool import TrainingPassage, TrainingPool, TrainingQuestion, read_pool

FEATURES = ("log_probability", "log_probability_per_token")
_PRIOR_SCALE = 0.6
_TOP_K = 5
_SELF_CONTAINED_RATIO = 0.3


@dataclass(frozen=True, slots=True)
class CalibrationExample:
    """One answer with its features (in the order of ``FEATURES``) and whether it was right."""

    features: tuple[float, ...]
    is_right: bool


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """p(right) = sigmoid(weights . features + bias)."""

    weights: tuple[float, ...]
    bias: float

    def predict(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Probabilities (N,) of features (N, F)."""
        logits = np.asarray(features @ np.array(self.weights) + self.bias, dtype=np.float64)
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float64)


def fit_logistic(
    features: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], *, ridge: float = 1e-3, num_steps: int = 50
) -> LogisticFit:
    """Maximum likelihood by Newton's method with a small ridge; features (N, F), labels 0/1 (N,)."""
    design = np.column_stack([features, np.ones(len(features))])
    solution = np.zeros(design.shape[1])
    for _ in range(num_steps):
        probability = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        gradient = design.T @ (probability - labels) + ridge * solution
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + ridge * np.eye(design.shape[1])
        step = np.linalg.solve(curvature, gradient)
        solution = solution - step
        if np.abs(step).max() < 1e-9:
            break
    return LogisticFit(tuple(float(weight) for weight in solution[:-1]), float(solution[-1]))


def expected_calibration_error(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], *, num_bins: int = 10
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by count (Guo et al. 2017, eq. 3)."""
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    gaps = [abs(float((probabilities[bins == b] - labels[bins == b]).sum())) for b in range(num_bins)]
    return sum(gaps) / len(labels)


class RagSequenceAnswerer:
    """RAG-Sequence by the book: a greedy candidate per passage, each scored under all passages."""

    def __init__(self, answerer: Answerer, prompt: PromptFormat) -> None:
        self._answerer, self._prompt = answerer, prompt

    @torch.inference_mode()
    def answer(
        self, question: str, passages: Sequence[TrainingPassage], log_priors: torch.Tensor
    ) -> tuple[str, float, int]:
        """Text of the most probable candidate, its log p(y|x) in nats with EOS, and its number of tokens with EOS."""
        tokenizer, model = self._answerer.tokenizer, self._answerer.model
        inputs = [self._prompt.encode(tokenizer, question, passage.title, passage.text) for passage in passages]
        padded = tokenizer.pad({"input_ids": inputs}, return_tensors="pt")
        encoded = BaseModelOutput(model.model.encoder(**padded)[0])
        candidates = model.generate(
            encoder_outputs=encoded, attention_mask=padded["attention_mask"], min_new_tokens=1, max_new_tokens=32
        )[:, 1:]
        eos_id = int(model.config.eos_token_id)
        unique = {tuple(_cut(candidate.tolist(), eos_id)) for candidate in candidates}
        scored = {ids: self._score(ids, encoded, padded["attention_mask"], log_priors) for ids in sorted(unique)}
        best = max(scored, key=lambda ids: scored[ids][0])
        log_probability, posterior = scored[best]
        ranked = [passages[int(i)] for i in posterior.argsort(descending=True)]
        texts = [self._prompt.passage_segment(passage.title, passage.text) for passage in ranked]
        return restore_surface(tokenizer, best, texts).text, log_probability, len(best)

    def _score(
        self, ids: tuple[int, ...], encoded: BaseModelOutput, mask: torch.Tensor, log_priors: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        model = self._answerer.model
        rows = len(log_priors)
        targets = torch.tensor(ids).expand(rows, -1)
        start = torch.full((rows, 1), int(model.config.decoder_start_token_id))
        logits = model(
            encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=torch.cat([start, targets[:, :-1]], 1)
        ).logits
        log_likelihoods = logits.float().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).sum(1)
        joint = log_priors + log_likelihoods
        return float(joint.logsumexp(0)), joint.softmax(0)


def _cut(ids: list[int], eos_id: int) -> list[int]:
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def calibration_examples(answerer: Answerer, pool: TrainingPool, *, limit: int | None) -> list[CalibrationExample]:
    """Answer the held-out questions that stand on their own, over the ``_TOP_K`` passages that BM25 finds."""
    index = TermIndex(passage.text_ids for passage in pool.passages)
    rag = RagSequenceAnswerer(answerer, PromptFormat())
    asked = [question for question in pool.held_out if question.negative_ratio > _SELF_CONTAINED_RATIO]
    examples: list[CalibrationExample] = []
    for number, question in enumerate(asked[:limit]):
        example = _ask(rag, index, pool, question, without_gold=number % 4 == 3)
        if example is not None:
            examples.append(example)
    return examples


def _ask(
    rag: RagSequenceAnswerer, index: TermIndex, pool: TrainingPool, question: TrainingQuestion, *, without_gold: bool
) -> CalibrationExample | None:
    found = index.ranked(question.question_ids, _TOP_K + 1)
    found = [(place, score) for place, score in found if not (without_gold and place == question.passage)][:_TOP_K]
    if not found:
        return None
    log_priors = torch.tensor([_PRIOR_SCALE * score for _, score in found]).log_softmax(0)
    passages = [pool.passages[place] for place, _ in found]
    text, log_probability, num_tokens = rag.answer(question.question, passages, log_priors)
    features = (log_probability, log_probability / num_tokens)
    return CalibrationExample(features, exact_match(text, question.answers) == 1.0)


def calibrate(checkpoint: Path, data: Path, *, limit: int | None) -> dict[str, object]:
    """The contents of ``confidence.json``: the fit on all examples, with cross-validated quality beside it."""
    answerer = Answerer(checkpoint)
    pool = read_pool(data, answerer.tokenizer, prompt=PromptFormat())
    examples = calibration_examples(answerer, pool, limit=limit)
    features = np.array([example.features for example in examples])
    labels = np.array([float(example.is_right) for example in examples])
    folds = np.arange(len(labels)) % 5
    predicted = np.zeros(len(labels))
    for fold in range(5):
        held_out = folds == fold
        predicted[held_out] = fit_logistic(features[~held_out], labels[~held_out]).predict(features[held_out])
    fit = fit_logistic(features, labels)
    brier = float(((predicted - labels) ** 2).mean())
    quality = {
        "num_examples": len(labels),
        "right_ratio": float(labels.mean()),
        "expected_calibration_error": expected_calibration_error(predicted, labels),
        "brier": brier,
        "brier_of_base_rate": float(labels.mean() * (1 - labels.mean())),
    }
    return {"features": list(FEATURES), "weights": list(fit.weights), "bias": fit.bias, "cross_validated": quality}


def main(arguments: list[str] | None = None) -> None:
    """Fit, and write ``confidence.json`` into the folder named."""
    parser = argparse.ArgumentParser(prog="python -m training.generator.calibrate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a Hugging Face checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets confidence.json")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RAG_SHARED_DATA", "../shared/data")))
    parser.add_argument("--limit", type=int, default=None, help="number of questions; default: all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    flags = parser.parse_args(arguments)
    torch.set_num_threads(flags.threads)
    confidence = json.dumps(calibrate(flags.checkpoint, flags.data, limit=flags.limit), indent=2) + "\n"
    (flags.out / "confidence.json").write_text(confidence, encoding="utf-8")
    Console().print_json(confidence)


if __name__ == "__main__":
    main()
