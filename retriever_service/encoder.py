"""The bi-encoder: texts to vectors, exact float32, as the checkpoint's own configuration says. Knows no queue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from transformers import AutoModel, AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

from retriever_service.checkpoint import Checkpoint, find_checkpoint
from retriever_service.collection import EncoderIdentity, Vectors

_MAX_BATCH_TOKENS = 4_096  # Padded tokens of one forward pass: larger gains nothing on a CPU and costs memory.


@dataclass(frozen=True, slots=True)
class Query:
    """A text to be embedded as a query."""

    text: str


@dataclass(frozen=True, slots=True)
class PassageText:
    """A text to be embedded as a passage."""

    text: str
    title: str = ""

    def joined(self) -> str:
        """Title and text as one input."""
        return f"{self.title}\n{self.text}" if self.title else self.text


EncoderInput = Query | PassageText


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What GetInfo says of an encoder."""

    identity: EncoderIdentity
    architecture: str
    device: str
    num_parameters: int
    max_input_tokens: int


class Encoder(Protocol):
    """Texts to vectors."""

    @property
    def info(self) -> EncoderInfo:
        """What it is."""
        ...

    def encode(self, inputs: Sequence[EncoderInput]) -> Vectors:
        """Embeds (N, D) float32, in order. One call at a time."""
        ...


class BiEncoder:
    """An encoder from a Hugging Face checkpoint; a DPR pair uses one tower for queries, another for passages."""

    def __init__(self, name: str, passage_name: str = "", *, device: str = "cpu") -> None:
        """Loads the checkpoint.

        Args:
            name: Name or path of the (query) encoder.
            passage_name: Name or path of the passage encoder where it is another, as DPR's context encoder.
            device: A torch device.

        Raises:
            FailedPrecondition: When there is no such checkpoint, or it cannot be served.
        """
        query = _Tower(find_checkpoint(name), device)
        passage = _Tower(find_checkpoint(passage_name), device) if passage_name else query
        if query.dim != passage.dim:
            raise ValueError(f"{name} has {query.dim} dimensions, {passage_name} has {passage.dim}")
        digest = query.checkpoint.digest()
        if passage is not query:
            digest = hashlib.sha256(f"{digest} {passage.checkpoint.digest()}".encode()).hexdigest()
        self._query, self._passage = query, passage
        towers = {id(tower): tower for tower in (query, passage)}.values()
        self._info = EncoderInfo(
            EncoderIdentity(name, digest, query.dim, query.checkpoint.is_normalising),
            architecture=type(query.model).__name__,
            device=device,
            num_parameters=sum(tower.num_parameters for tower in towers),
            max_input_tokens=query.checkpoint.max_input_tokens,
        )

    @property
    def info(self) -> EncoderInfo:
        """What it is."""
        return self._info

    def encode(self, inputs: Sequence[EncoderInput]) -> Vectors:
        """Embeds queries and passages.

        Args:
            inputs: N texts; one longer than `max_input_tokens` is truncated.

        Returns:
            (N, D) float32, in order; of length 1 where the checkpoint normalises.
        """
        vectors = np.empty((len(inputs), self._query.dim), np.float32)
        for kind, tower in ((Query, self._query), (PassageText, self._passage)):
            chosen = [i for i, item in enumerate(inputs) if isinstance(item, kind)]
            if chosen:
                vectors[chosen] = tower.encode([inputs[i] for i in chosen])
        return vectors


class _Tower:
    """One checkpoint, loaded."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.checkpoint, self._device = checkpoint, device
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
        self.model = _load_model(checkpoint).eval().to(device)
        self.dim = int(getattr(self.model.config, "projection_dim", 0) or self.model.config.hidden_size)
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())

    def encode(self, inputs: Sequence[EncoderInput]) -> Vectors:
        """Embeds (N, D), shortest first, so that little is padded."""
        tokens = self._tokenize(inputs)
        lengths = [len(ids) for ids in tokens["input_ids"]]
        order = sorted(range(len(inputs)), key=lengths.__getitem__)
        vectors = np.empty((len(inputs), self.dim), np.float32)
        while order:
            size = len(order)
            while size > 1 and size * lengths[order[size - 1]] > _MAX_BATCH_TOKENS:
                size -= 1
            batch, order = order[:size], order[size:]
            padded = self._tokenizer.pad(
                {key: [values[i] for i in batch] for key, values in tokens.items()}, return_tensors="pt"
            )
            vectors[batch] = self._forward(dict(padded)).cpu().numpy()
        return vectors

    def _tokenize(self, inputs: Sequence[EncoderInput]) -> dict[str, list[list[int]]]:
        limit: dict[str, Any] = {"truncation": True, "max_length": self.checkpoint.max_input_tokens}
        if self.checkpoint.is_dpr and isinstance(inputs[0], PassageText):
            passages = [item for item in inputs if isinstance(item, PassageText)]
            limit["truncation"] = "only_second"
            encoded = self._tokenizer([p.title for p in passages], [p.text for p in passages], **limit)
        else:
            encoded = self._tokenizer([self._prompted(item) for item in inputs], **limit)
        return dict(encoded)

    def _prompted(self, item: EncoderInput) -> str:
        prompts = self.checkpoint.prompts
        if isinstance(item, Query):
            return prompts.get("query", "") + item.text
        return prompts.get("passage", "") + item.joined()

    @torch.inference_mode()
    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        output = self.model(**{key: value.to(self._device) for key, value in batch.items()})
        if self.checkpoint.is_dpr:
            pooled = output.pooler_output
        elif self.checkpoint.pooling.value == "cls":
            pooled = output.last_hidden_state[:, 0]
        else:
            mask = batch["attention_mask"].to(self._device)[..., None].to(output.last_hidden_state.dtype)
            pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
        pooled = pooled.float()
        return torch.nn.functional.normalize(pooled, dim=1) if self.checkpoint.is_normalising else pooled


def _load_model(checkpoint: Checkpoint) -> Any:
    transformers.logging.disable_progress_bar()
    if not checkpoint.is_dpr:
        return AutoModel.from_pretrained(checkpoint.path, dtype=torch.float32)
    architectures = (checkpoint.path / "config.json").read_text(encoding="utf-8")
    kind = DPRContextEncoder if "DPRContextEncoder" in architectures else DPRQuestionEncoder
    return kind.from_pretrained(checkpoint.path, dtype=torch.float32)
