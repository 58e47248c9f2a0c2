"""Which checkpoints our models load, what they refuse, and what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BartConfig, T5Config

from generator_service.models import lean
from serving.errors import Unimplemented

ROWS = [[5, 6, 7], [8, 9, 10, 11]]


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_attention_heads=2, decoder_ffn_dim=24, max_position_embeddings=32,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("bart")
    model = transformers.BartForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 7
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0)
    path = tmp_path_factory.mktemp("t5")
    transformers.T5ForConditionalGeneration(config).save_pretrained(path)
    return path


def _copy(source: Path, target: Path, **config: Any) -> Path:
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    changed = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(changed))
    return target


def _same_states(path: Path, other: Path) -> bool:
    pairs = zip(lean.load(path).encode(ROWS), lean.load(other).encode(ROWS), strict=True)
    return all(torch.equal(a.states, b.states) for a, b in pairs)


def test_the_spec_says_what_the_checkpoint_says(bart: Path) -> None:
    spec = lean.load(bart, dtype="bfloat16").spec
    assert (spec.architecture, spec.dtype, spec.device) == ("BartForConditionalGeneration", "bfloat16", "cpu")
    assert (spec.vocab_size, spec.max_input_tokens, spec.max_target_tokens) == (50, 32, 32)
    assert (spec.decoder_start_token_id, spec.bos_token_id, spec.eos_token_id, spec.pad_token_id) == (2, 0, 2, 1)
    assert (spec.forced_bos_token_id, spec.forced_eos_token_id) == (7, 2)
    model = transformers.BartForConditionalGeneration.from_pretrained(bart)
    assert spec.num_parameters == sum(parameter.numel() for parameter in model.parameters()) + 50  # final_logits_bias


def test_t5_token_ids_have_their_family_defaults(t5: Path, tmp_path: Path) -> None:
    path = _copy(t5, tmp_path / "t5")
    (path / "generation_config.json").unlink()
    config = json.loads((path / "config.json").read_text())
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        config.pop(name, None)
    (path / "config.json").write_text(json.dumps(config))
    spec = lean.load(path).spec
    assert (spec.pad_token_id, spec.eos_token_id, spec.decoder_start_token_id) == (0, 1, 0)
    assert (spec.bos_token_id, spec.forced_bos_token_id, spec.forced_eos_token_id) == (None, None, None)


def test_the_generation_config_decides_over_the_config(bart: Path, tmp_path: Path) -> None:
    path = _copy(bart, tmp_path / "bart")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4], "decoder_start_token_id": 5}))
    spec = lean.load(path).spec
    assert (spec.eos_token_id, spec.decoder_start_token_id, spec.pad_token_id) == (3, 5, 1)
    assert (spec.forced_bos_token_id, spec.forced_eos_token_id) == (None, None)


def test_the_digest_follows_weights_and_config(bart: Path, tmp_path: Path) -> None:
    digest = lean.load(bart).spec.digest
    same, scaled = _copy(bart, tmp_path / "same"), _copy(bart, tmp_path / "scaled", scale_embedding=True)
    changed = _copy(bart, tmp_path / "changed")
    weights = load_file(changed / "model.safetensors")
    weights["model.shared.weight"][3, 3] += 1
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    assert lean.load(same).spec.digest == digest
    assert digest not in {lean.load(scaled).spec.digest, lean.load(changed).spec.digest}


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_sharded_weights_give_the_same_model(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = request.getfixturevalue(family)
    transformers.AutoModelForSeq2SeqLM.from_pretrained(path).save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert not (tmp_path / "model.safetensors").exists()
    assert _same_states(path, tmp_path)


def test_the_generator_inside_a_rag_checkpoint_is_found(bart: Path, tmp_path: Path) -> None:
    path = _copy(bart, tmp_path / "rag")
    weights = {f"rag.generator.{name}": tensor for name, tensor in load_file(path / "model.safetensors").items()}
    weights["rag.question_encoder.pooler.weight"] = torch.zeros(2, 2)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({"model_type": "rag", "generator": config, "n_docs": 5}))
    assert _same_states(bart, path)


def test_tied_tables_are_found_under_any_of_their_names(t5: Path, tmp_path: Path) -> None:
    path = _copy(t5, tmp_path / "t5")
    weights = load_file(path / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("shared.weight")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    assert _same_states(t5, path)


def test_an_unknown_family_is_refused_by_name(bart: Path, tmp_path: Path) -> None:
    with pytest.raises(Unimplemented, match="model_type 'pegasus'"):
        lean.load(_copy(bart, tmp_path / "other", model_type="pegasus"))


def test_an_unknown_activation_is_refused_by_name(bart: Path, tmp_path: Path) -> None:
    with pytest.raises(Unimplemented, match="activation 'quick_gelu'"):
        lean.load(_copy(bart, tmp_path / "other", activation_function="quick_gelu"))


def test_an_unknown_dtype_is_refused_by_name(bart: Path) -> None:
    with pytest.raises(Unimplemented, match="dtype 'int3'"):
        lean.load(bart, dtype="int3")


def test_pickled_weights_are_refused_with_the_way_out(bart: Path, tmp_path: Path) -> None:
    path = _copy(bart, tmp_path / "pickled")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="save_pretrained"):
        lean.load(path)


def test_a_missing_weight_is_named(bart: Path, tmp_path: Path) -> None:
    path = _copy(bart, tmp_path / "torn")
    weights = load_file(path / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.bias"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"model\.decoder\.layers\.0\.fc1\.bias"):
        lean.load(path)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        lean.load(tmp_path)
