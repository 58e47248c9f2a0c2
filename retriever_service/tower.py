"""One bi-encoder checkpoint at work: texts → token ids → batches → vectors. Knows no queue and no collection.

The lean code serves the families it knows; any other checkpoint goes through transformers' own model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retriever_service.bert import Bert
from retriever_service.checkpoint import Checkpoint, Pooling
from retriever_service.collection import Vectors
from retriever_service.encoder import PassageText
from retriever_service.stored_model import read_model, read_tokenizer
from serving.errors import Unimplemented
from serving.logs import get_logger

log = get_logger(__name__)

_MAX_BATCH_TOKENS = 4_096  # Of one forward pass: larger gains nothing on a CPU and costs memory.

_INPUTS = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}

Tokens = Mapping[str, Sequence[Sequence[int]]]
"""Model inputs of N rows by name, as a tokenizer gives them: input_ids and what else the model reads."""


class Network(Protocol):
    """Token ids to pooled vectors."""

    def __call__(self, tokens: Tokens) -> Tensor:
        """N rows -> (N, D)."""
        ...


def load_tower(checkpoint: Checkpoint, *, device: str, dtype: str) -> Tower:
    """Loads weights and tokenizer of a checkpoint; `dtype` is "float32" or "bfloat16"."""
    model = read_model(checkpoint.path, checkpoint.config) or load_model(checkpoint).eval()
    return make_tower(Tokenization(checkpoint), model, device=device, dtype=dtype)


def make_tower(tokenization: Tokenization, model: Any, *, device: str, dtype: str) -> Tower:
    """The tower of a float32 model, which is taken over."""
    place, kind = torch.device(device), getattr(torch, dtype)
    pooling = tokenization.checkpoint.pooling
    network: Network
    try:
        network = LeanNetwork(model, pooling, device=place, dtype=kind)
    except Unimplemented as reason:
        log.info("encoder served by transformers' own model", reason=reason.message)
        network = TransformersNetwork(model.to(place, kind), tokenization.tokenizer, pooling)
    return Tower(tokenization, network, model)


class Tokenization:
    """A checkpoint's inputs: texts to token ids, cut off at its window."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self._stored = checkpoint, read_tokenizer(checkpoint.tokenizer_path)

    @cached_property
    def tokenizer(self) -> Any:
        """As transformers has it."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.checkpoint.tokenizer_path)

    def queries(self, texts: Sequence[str]) -> Tokens:
        """N queries."""
        prompt = self.checkpoint.prompts.get("query", "")
        return self._tokenize([prompt + text for text in texts])

    def passages(self, passages: Sequence[PassageText]) -> Tokens:
        """N passages; never cuts off a title that DPR takes apart from the text."""
        if self.checkpoint.is_dpr:
            titles, texts = [passage.title for passage in passages], [passage.text for passage in passages]
            limit = self.checkpoint.max_input_tokens
            return dict(self.tokenizer(titles, texts, truncation="only_second", max_length=limit))
        prompt = self.checkpoint.prompts.get("passage", "")
        return self._tokenize([prompt + passage.joined() for passage in passages])

    def _tokenize(self, texts: list[str]) -> Tokens:
        limit, direction, names = self.checkpoint.max_input_tokens, "right", list(_INPUTS)
        backend = self._stored
        if backend is None:
            if not self.tokenizer.is_fast:
                return dict(self.tokenizer(texts, truncation=True, max_length=limit))
            backend, direction = self.tokenizer.backend_tokenizer, self.tokenizer.truncation_side
            names = [name for name in self.tokenizer.model_input_names if name in _INPUTS]
        # What transformers would ask of it, without offsets and wrapping: half of a short query's tokenization.
        backend.no_padding()
        backend.enable_truncation(limit, direction=direction)
        encodings = backend.encode_batch_fast(texts)
        return {name: [getattr(encoding, _INPUTS[name]) for encoding in encodings] for name in names}


class Tower:
    """One checkpoint, loaded."""

    def __init__(self, tokenization: Tokenization, network: Network, model: Any) -> None:
        self.checkpoint = tokenization.checkpoint
        self._tokenization, self._network = tokenization, network
        self.architecture = getattr(model, "architecture", type(model).__name__)
        self.dim = int(getattr(model.config, "projection_dim", 0) or model.config.hidden_size)
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Embeds (N, D) float32, in order; what is longer than the window is cut off."""
        return self._encode(self._tokenization.queries(texts))

    def encode_passages(self, passages: Sequence[PassageText]) -> Vectors:
        """Embeds (N, D) float32, in order; what is longer than the window is cut off the text."""
        return self._encode(self._tokenization.passages(passages))

    @torch.inference_mode()
    def _encode(self, tokens: Tokens) -> Vectors:
        lengths = [len(ids) for ids in tokens["input_ids"]]
        vectors = np.empty((len(lengths), self.dim), np.float32)
        for batch in _batches(lengths):
            pooled = self._network({key: [values[i] for i in batch] for key, values in tokens.items()}).float()
            if self.checkpoint.is_normalising:
                pooled = F.normalize(pooled, dim=1)
            vectors[batch] = pooled.cpu().numpy()
        return vectors


class LeanNetwork:
    """The BERT family, by our own code."""

    def __init__(self, model: Any, pooling: Pooling, *, device: torch.device, dtype: torch.dtype) -> None:
        """Takes over the weights of a float32 model; it may be dropped afterwards.

        Raises:
            Unimplemented: If the model is not of that family.
        """
        projection = None
        if pooling is Pooling.POOLER:
            half = getattr(model, model.base_model_prefix)
            model, projection = half.bert_model, getattr(half, "encode_proj", None)
        self._bert = Bert(model, device=device, dtype=dtype)
        self._pooling, self._projection = pooling, None if projection is None else projection.to(device)

    def __call__(self, tokens: Tokens) -> Tensor:
        """See `Network`."""
        states, rows = self._bert(tokens["input_ids"], tokens.get("token_type_ids"))
        if self._pooling is Pooling.MEAN:
            return rows.mean(states)
        first = rows.first(states)
        return first if self._projection is None else self._projection(first)


class TransformersNetwork:
    """Any encoder, by transformers' own code."""

    def __init__(self, model: Any, tokenizer: Any, pooling: Pooling) -> None:
        self._model, self._tokenizer, self._pooling = model, tokenizer, pooling

    def __call__(self, tokens: Tokens) -> Tensor:
        """See `Network`."""
        batch = self._tokenizer.pad(dict(tokens), return_tensors="pt").to(self._model.device)
        return pool(self._model(**batch), batch["attention_mask"], self._pooling)


def pool(output: Any, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector (N, D) for each row of a transformers model's output; `mask` (N, T) is 1 where a token stands."""
    pooled: Tensor
    match pooling:
        case Pooling.POOLER:
            pooled = output.pooler_output
        case Pooling.CLS:
            pooled = output.last_hidden_state[:, 0]
        case Pooling.MEAN:
            pooled = (output.last_hidden_state.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return pooled


def load_model(checkpoint: Checkpoint) -> Any:
    """The checkpoint's model as transformers has it, in float32."""
    import transformers
    from transformers import AutoModel, DPRConfig, DPRContextEncoder, DPRQuestionEncoder

    class RagQuestionEncoder(DPRQuestionEncoder):  # type: ignore[misc]  # transformers' class is Any to mypy.
        """Loads from a whole RAG model without a report of the generator's weights."""

        _keys_to_ignore_on_load_unexpected = (r"generator\.",)

    transformers.logging.disable_progress_bar()
    if not checkpoint.is_dpr:
        return AutoModel.from_pretrained(checkpoint.path, dtype=torch.float32)
    if checkpoint.is_rag:
        return RagQuestionEncoder.from_pretrained(
            checkpoint.path,
            config=DPRConfig(**checkpoint.config),
            key_mapping={r"^(rag\.)?question_encoder\.question_encoder\.": "question_encoder."},
            dtype=torch.float32,
        )
    kind = (
        DPRContextEncoder if "DPRContextEncoder" in checkpoint.config.get("architectures", ()) else DPRQuestionEncoder
    )
    return kind.from_pretrained(checkpoint.path, dtype=torch.float32)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers by length, the longest first; a batch holds what fits when all are as long as its longest."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    while order:
        size = max(1, _MAX_BATCH_TOKENS // lengths[order[0]])
        yield order[:size]
        order = order[size:]
