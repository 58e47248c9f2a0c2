"""BERT checkpoints read without transformers, whose import takes longer than all else of a start together.

Read are safetensors weights and a WordPiece `tokenizer.json`, where they are what transformers would make of them; for
anything else the functions return None, and transformers is to be asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tokenizers
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retriever_service import bert
from serving.errors import Unimplemented

_NEEDED = ("hidden_size", "hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers", "pad_token_id")
_EMBEDDINGS = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
               "LayerNorm.weight", "LayerNorm.bias")  # fmt: skip
_LAYER = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
          "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")  # fmt: skip
_KINDS = ("weight", "bias")
# How the normalizer calls what tokenizer_config.json says, and what transformers takes where it does not.
_NORMALIZER = {
    "clean_text": ("clean_text", True),
    "handle_chinese_chars": ("tokenize_chinese_chars", True),
    "lowercase": ("do_lower_case", True),
    "strip_accents": ("strip_accents", None),
}


class StoredModel(SimpleNamespace):
    """The weights of a BERT, float32, as attributes named and nested as in transformers' model of it."""

    architecture = "BertModel"

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Takes the checkpoint's config.json and weights."""
        super().__init__(config=SimpleNamespace(**config))
        self._tensors = tensors
        for name, tensor in tensors.items():
            *path, last = name.split(".")
            node: SimpleNamespace = self
            for part in path:
                node = vars(node).setdefault(part, SimpleNamespace())
            setattr(node, last, tensor)
        layers = vars(self.encoder.layer)
        self.encoder.layer = [layers[str(number)] for number in range(self.config.num_hidden_layers)]

    def parameters(self) -> Sequence[Tensor]:
        """All weights."""
        return list(self._tensors.values())


def read_model(path: Path, config: Mapping[str, Any]) -> StoredModel | None:
    """The model that lies in a directory; None when transformers has to read it."""
    if config.get("model_type") != "bert" or any(name not in config for name in _NEEDED):
        return None
    try:
        bert.check(SimpleNamespace(**config))
        with safe_open(path / "model.safetensors", "pt") as file:  # Where it is split over files there is none such.
            stored = {name.removeprefix("bert."): name for name in file.keys()}  # noqa: SIM118 - it is no mapping.
            own = [name for name in stored if name.startswith(("embeddings.", "encoder.", "pooler."))]
            tensors = {name: file.get_tensor(stored[name]) for name in own}
    except (Unimplemented, OSError, SafetensorError):
        return None
    tensors = {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}
    is_complete = tensors.keys() >= _names(config["num_hidden_layers"])  # Old files have other names for norms.
    return StoredModel(config, tensors) if is_complete else None


def _names(num_layers: int) -> set[str]:
    layers = [f"encoder.layer.{number}.{part}" for number in range(num_layers) for part in _LAYER]
    return {f"embeddings.{name}" for name in _EMBEDDINGS} | {f"{one}.{kind}" for one in layers for kind in _KINDS}


def read_tokenizer(path: Path) -> tokenizers.Tokenizer | None:
    """The tokenizer that lies in a directory; None when transformers would make another of it."""
    try:
        stored = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
        given = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    parts = [(stored.get(name) or {}).get("type") for name in ("model", "normalizer", "pre_tokenizer")]
    is_plain = (
        parts == ["WordPiece", "BertNormalizer", "BertPreTokenizer"]
        and all(stored["normalizer"].get(ours) == given.get(name, usual) for ours, (name, usual) in _NORMALIZER.items())
        and given.get("tokenizer_class", "").removesuffix("Fast") == "BertTokenizer"
        and given.get("truncation_side", "right") == "right"
    )
    return tokenizers.Tokenizer.from_file(str(path / "tokenizer.json")) if is_plain else None
