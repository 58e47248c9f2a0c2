"""BERT checkpoints are read without transformers where that gives exactly what transformers would, and only there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel

from retriever_service.checkpoint import find_checkpoint
from retriever_service.stored_model import read_model, read_tokenizer
from retriever_service.tower import Tokenization

TEXTS = [
    "What is the capital of France?", "Zürich ÀÉ 東京 tower [MASK] ##ing \u200b\t\x00 x", "a " * 400, "", "  ",
    "naïve café—dash’s 'q' 100,000.5", "[CLS] [SEP] [unused0]",
]  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small checkpoint of a model with a head: its names have a prefix."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=30, intermediate_size=32, **sizes)).save_pretrained(tmp_path)
    return tmp_path


def config_of(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    return config


def test_the_weights_are_those_that_transformers_loads(saved: Path) -> None:
    stored, model = read_model(saved, config_of(saved)), BertModel.from_pretrained(saved, add_pooling_layer=False)
    assert stored is not None
    expected = dict(model.named_parameters())
    assert len(stored.parameters()) == len(expected)
    assert torch.equal(stored.encoder.layer[1].output.dense.weight, expected["encoder.layer.1.output.dense.weight"])
    assert torch.equal(stored.embeddings.LayerNorm.bias, expected["embeddings.LayerNorm.bias"])


def test_half_precision_weights_become_float32(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in weights.items()}, saved / "model.safetensors")
    stored = read_model(saved, config_of(saved))
    assert stored is not None
    assert {tensor.dtype for tensor in stored.parameters()} == {torch.float32}


@pytest.mark.parametrize("change", [{"model_type": "roberta"}, {"hidden_act": "tanh"}, {"is_decoder": True}])
def test_a_model_that_the_own_code_cannot_run_is_left_to_transformers(saved: Path, change: dict[str, Any]) -> None:
    assert read_model(saved, config_of(saved)) is not None
    assert read_model(saved, {**config_of(saved), **change}) is None


@pytest.mark.parametrize("damage", ["no file", "not safetensors", "old names", "a layer is missing", "no such setting"])
def test_weights_that_are_not_all_there_are_left_to_transformers(saved: Path, damage: str) -> None:
    config, path = config_of(saved), saved / "model.safetensors"
    weights = load_file(path)
    match damage:
        case "no file":
            path.unlink()
        case "not safetensors":
            path.write_bytes(b"a pickle, perhaps")
        case "old names":
            save_file({name.replace("LayerNorm.weight", "LayerNorm.gamma"): one for name, one in weights.items()}, path)
        case "a layer is missing":
            save_file({name: one for name, one in weights.items() if "layer.1.output" not in name}, path)
        case "no such setting":
            del config["layer_norm_eps"]
    assert read_model(saved, config) is None


def test_the_tokenizer_gives_transformers_tokens_whatever_the_text() -> None:
    checkpoint = find_checkpoint("all-MiniLM-L6-v2")
    assert read_tokenizer(checkpoint.tokenizer_path) is not None
    theirs = AutoTokenizer.from_pretrained(checkpoint.tokenizer_path)
    expected = dict(theirs(TEXTS, truncation=True, max_length=checkpoint.max_input_tokens))
    assert Tokenization(checkpoint).queries(TEXTS) == expected


@pytest.mark.parametrize(
    "change",
    [{"do_lower_case": False}, {"strip_accents": False}, {"tokenizer_class": "X"}, {"truncation_side": "left"}],
)
def test_a_tokenizer_that_transformers_would_change_is_left_to_it(tmp_path: Path, change: dict[str, Any]) -> None:
    source = find_checkpoint("all-MiniLM-L6-v2").tokenizer_path
    shutil.copy(source / "tokenizer.json", tmp_path)
    assert read_tokenizer(tmp_path) is None  # Without its configuration nobody knows.
    given = json.loads((source / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**given, **change}))
    assert read_tokenizer(tmp_path) is None


def test_the_default_encoders_kind_is_loaded_without_transformers() -> None:
    program = """
import sys
from retriever_service.bi_encoder import BiEncoder
from retriever_service.encoder import PassageText, Query
encoder = BiEncoder("all-MiniLM-L6-v2")
encoder.encode([Query("Where?"), PassageText("Here.", "Place")])
print(encoder.info.architecture, encoder.info.num_parameters, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["BertModel", "22713216", "False"]
