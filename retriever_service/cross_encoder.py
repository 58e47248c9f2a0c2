"""The cross-encoder: a model that reads a query and a passage together and says how well they fit. Knows no queue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from retriever_service.checkpoint import digests_of_files, find_directory, has_tokenizer
from retriever_service.reranker import Pair
from serving.errors import FailedPrecondition

_PAIRS_PER_PASS = 8  # Of similar length: more of them gain nothing on a CPU, and pad more.


class CrossEncoder:
    """A sequence classifier of Hugging Face's transformers with one logit, or with two classes."""

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        """Loads the checkpoint.

        Args:
            name: A directory, or a name on the model hub.
            device: A torch device.

        Raises:
            FailedPrecondition: When there is no such checkpoint with its tokenizer, or it has more than two classes.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        path = find_directory(name, "reranker")
        if not has_tokenizer(path):
            raise FailedPrecondition(f"reranker {name!r}: {path} holds no tokenizer", reason="RERANKER_UNSUPPORTED")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
            model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise FailedPrecondition(
                f"reranker {name!r} cannot be loaded: {error}", reason="RERANKER_UNSUPPORTED"
            ) from error
        if model.config.num_labels > 2:
            raise FailedPrecondition(
                f"reranker {name!r} has {model.config.num_labels} classes; one logit, or two classes, can rank",
                reason="RERANKER_UNSUPPORTED",
            )
        self._model, self._device = model.eval().to(device), device
        self._max_tokens = _max_input_tokens(model.config, self._tokenizer)
        total = hashlib.sha256()
        for digest in digests_of_files(path, path):
            total.update(digest)
        self._digest = total.hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over weights and tokenizer."""
        return self._digest

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The model's logit for each pair; of two classes, the log odds of the second, "relevant".

        A pair longer than the model's window is cut, the longer side first.
        """
        encoded = [
            self._tokenizer(pair.query, pair.passage.joined(), truncation="longest_first", max_length=self._max_tokens)
            for pair in pairs
        ]
        order = sorted(range(len(pairs)), key=lambda i: len(encoded[i]["input_ids"]))
        scores = [0.0] * len(pairs)
        for start in range(0, len(order), _PAIRS_PER_PASS):
            chosen = order[start : start + _PAIRS_PER_PASS]
            for i, score in zip(chosen, self._forward([encoded[i] for i in chosen]), strict=True):
                scores[i] = score
        return scores

    def _forward(self, encoded: Sequence[Any]) -> list[float]:
        batch = self._tokenizer.pad(list(encoded), return_tensors="pt").to(self._device)
        with torch.inference_mode():
            logits = self._model(**batch).logits.double()  # (B, 1) or (B, 2)
        scores = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return [float(score) for score in scores]


def _max_input_tokens(config: Any, tokenizer: Any) -> int:
    positions = int(getattr(config, "max_position_embeddings", 0) or tokenizer.model_max_length)
    if "roberta" in config.model_type:  # Its positions count from the padding token's number.
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
