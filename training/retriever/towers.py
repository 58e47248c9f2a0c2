"""A bi-encoder in training: the checkpoint's own models, batched for CPUs, written back as a plain checkpoint."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from retriever_service.checkpoint import QUERY_HALF, Checkpoint, Pooling, find_checkpoint
from retriever_service.encoder import PassageText
from retriever_service.tower import Tokenization, Tokens, Tower, load_model, make_tower, pool
from training.generator import attention
from training.retriever.data import Passage

Trained = Literal["query", "both"]

# Few distinct shapes, since oneDNN compiles its kernels for each; chunks of like lengths, so that little is padded.
_WIDTH_STEP, _ROWS_STEP = 16, 4
_CHUNK_TOKENS = 2048


class Half:
    """One side of a bi-encoder: how its texts become token ids, and its model."""

    def __init__(self, source: Checkpoint, model: Any, *, max_tokens: int) -> None:
        self.source, self.model = source, model
        self.tokenization = Tokenization(replace(source, max_input_tokens=min(source.max_input_tokens, max_tokens)))

    def embed(self, tokens: Tokens, rows: Sequence[int], *, recompute: bool) -> Tensor:
        """Some rows of token ids -> (N, D) float32, of length 1 where the checkpoint normalises.

        With `recompute` only the vectors are kept for the backward pass, which encodes chunk by chunk once more:
        memory then does not grow with the batch, and the gradients are the same.

        Source: Gao et al. 2021 (gradient caching), here by torch's checkpointing.
        """
        lengths = torch.tensor([len(tokens["input_ids"][row]) for row in rows])
        order = torch.argsort(lengths, descending=True, stable=True)
        parts, start = [], 0
        while start < len(rows):
            size = max(1, _CHUNK_TOKENS // _rounded(int(lengths[order[start]]), _WIDTH_STEP))
            places = order[start : start + size].tolist()
            chunk = {name: [values[rows[place]] for place in places] for name, values in tokens.items()}
            parts.append(recomputed(self._encode, chunk, use_reentrant=False) if recompute else self._encode(chunk))
            start += size
        return torch.cat(parts)[torch.argsort(order)]

    def tower(self, *, dtype: str) -> Tower:
        """A copy of the model as it is now, in the retriever's own fast form; only while it holds float32 weights."""
        return make_tower(Tokenization(self.source), copy.deepcopy(self.model).eval(), device="cpu", dtype=dtype)

    def _encode(self, chunk: Tokens) -> Tensor:
        num_rows, width = len(chunk["input_ids"]), _rounded(len(chunk["input_ids"][0]), _WIDTH_STEP)
        padding = {"input_ids": int(self.tokenization.tokenizer.pad_token_id)}
        inputs = {name: _padded(rows, width, padding.get(name, 0)) for name, rows in chunk.items()}
        states = self.model(**inputs)
        vectors = pool(states, inputs["attention_mask"], self.source.pooling)[:num_rows].float()
        return F.normalize(vectors, dim=1) if self.source.is_normalising else vectors


class BiEncoder(nn.Module):
    """The two halves, which are one where they share their weights; what is not trained is frozen."""

    def __init__(self, query: Half, passage: Half, *, trained: Trained, trains_words: bool, dropout: float) -> None:
        super().__init__()
        self.query, self.passage = query, passage
        self.models = nn.ModuleList(dict.fromkeys((passage.model, query.model)))
        self.trained = trained
        attention.register()
        for model in (passage.model, query.model):
            model.set_attn_implementation(attention.NAME)
            model.get_input_embeddings().weight.requires_grad_(trains_words)
            for layer in model.modules():
                if isinstance(layer, nn.Dropout):
                    layer.p = dropout
        if trained == "query":
            passage.model.requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint as sentence-transformers lays it out; a query half of its own lies in `query`."""
        source = self.passage.source
        _save_model(self.passage.model, folder)
        self.passage.tokenization.tokenizer.save_pretrained(folder)
        if self.query.model is not self.passage.model:
            _save_model(self.query.model, folder / QUERY_HALF)
        if source.pooling is Pooling.POOLER:
            return
        names = ["Transformer", "Pooling", *(["Normalize"] if source.is_normalising else [])]
        paths = ["", "1_Pooling", "2_Normalize"]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(zip(names, paths, strict=False))
        ]
        modes = {f"pooling_mode_{mode}": False for mode in ("cls_token", "mean_tokens", "max_tokens")}
        modes["pooling_mode_cls_token" if source.pooling is Pooling.CLS else "pooling_mode_mean_tokens"] = True
        size = self.passage.model.config.hidden_size
        _write(folder / "modules.json", modules)
        _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **modes})
        _write(
            folder / "sentence_bert_config.json", {"max_seq_length": source.max_input_tokens, "do_lower_case": False}
        )
        _write(folder / "config_sentence_transformers.json", {"prompts": dict(source.prompts)})
        if source.is_normalising:
            (folder / "2_Normalize").mkdir(exist_ok=True)


def load_bi_encoder(
    name: str, passage_name: str, *, trained: Trained, trains_words: bool, dropout: float, max_tokens: int
) -> BiEncoder:
    """Loads what is to be trained.

    Args:
        name: Name or path of the (query) encoder.
        passage_name: Of the passage encoder, where it is another one, as of a DPR pair.
        trained: The query half alone, which then has weights of its own, or both.
        trains_words: Whether the word embeddings are trained, too.
        dropout: On hidden states while training.
        max_tokens: Longer passages are cut off in training; the checkpoint's own window stays.

    Raises:
        FailedPrecondition: When there is no such checkpoint, or it is of a kind that cannot be served.
    """
    given = find_checkpoint(name)
    query_source = given.query_half() or given
    passage_source = find_checkpoint(passage_name) if passage_name else given
    passage = Half(passage_source, load_model(passage_source), max_tokens=max_tokens)
    query = passage
    if trained == "query" or query_source is not passage_source:
        query = Half(query_source, load_model(query_source), max_tokens=max_tokens)
    return BiEncoder(query, passage, trained=trained, trains_words=trains_words, dropout=dropout)


def passage_texts(passages: Sequence[Passage]) -> list[PassageText]:
    """Passages as an encoder takes them."""
    return [PassageText(passage.text, passage.title) for passage in passages]


def _padded(rows: Sequence[Sequence[int]], width: int, filling: int) -> Tensor:
    """(N', width); N' is N rounded up, and the last row stands for those beyond."""
    padded = [[*row, *[filling] * (width - len(row))] for row in rows]
    return torch.tensor(padded + padded[-1:] * (_rounded(len(rows), _ROWS_STEP) - len(rows)))


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step


def _save_model(model: Any, folder: Path) -> None:
    implementation = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    model.set_attn_implementation(implementation)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
