"""Packing is small, restoring is bit for bit the same, and the cache survives races and damage."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration

from generator_service.packed_checkpoint import (
    PACKED_WEIGHTS,
    WEIGHTS,
    PackedCheckpointDamaged,
    dequantize_rows,
    pack,
    quantize_rows,
    read_manifest,
    restore,
)
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.generator.warm_start import GeneratorShape, random_generator

TINY = GeneratorShape(
    vocab_size=120, d_model=16, heads=2, ffn_dim=32, encoder_layers=1, decoder_layers=1, max_position_embeddings=32,
    cls_id=2, sep_id=3,
)  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    random_generator(TINY, seed=0).save_pretrained(folder)
    tiny_tokenizer(("paris", "oil")).save_pretrained(folder)
    return folder


def test_rows_round_to_the_nearest_step_of_their_own_scale() -> None:
    matrix = np.random.default_rng(0).normal(size=(7, 33)).astype(np.float32) * np.float32(3)
    values, scales = quantize_rows(matrix)
    assert np.abs(values).max() == 127
    assert np.all(np.abs(dequantize_rows(values, scales) - matrix) <= scales[:, None] * 0.5001)


def test_a_row_of_zeros_stays_zero() -> None:
    values, scales = quantize_rows(np.zeros((2, 4), dtype=np.float32))
    assert not dequantize_rows(values, scales).any()


def test_the_restored_checkpoint_loads_as_a_plain_hugging_face_model(checkpoint: Path, tmp_path: Path) -> None:
    pack(checkpoint, tmp_path / "packed")
    restored = restore(tmp_path / "packed", tmp_path / "cache")
    model = AutoModelForSeq2SeqLM.from_pretrained(restored)
    original = BartForConditionalGeneration.from_pretrained(checkpoint)
    assert model.config.rag_prompt == {"format": "question_passage", "max_input_tokens": 512}
    assert model.generation_config.min_new_tokens == 1
    for name, weight in original.named_parameters():
        assert torch.allclose(model.get_parameter(name), weight, atol=weight.detach().abs().max().item() / 200)


def test_restoring_twice_gives_the_same_bytes_and_packing_the_restored_changes_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    pack(checkpoint, tmp_path / "packed")
    first = (restore(tmp_path / "packed", tmp_path / "one") / WEIGHTS).read_bytes()
    second = (restore(tmp_path / "packed", tmp_path / "two") / WEIGHTS).read_bytes()
    assert first == second
    pack(restore(tmp_path / "packed", tmp_path / "one"), tmp_path / "again")
    again = load_file(tmp_path / "again" / PACKED_WEIGHTS)
    for name, tensor in load_file(tmp_path / "packed" / PACKED_WEIGHTS).items():
        if tensor.dtype == np.int8:
            assert np.array_equal(again[name], tensor)


def test_a_restored_checkpoint_is_written_once(checkpoint: Path, tmp_path: Path) -> None:
    pack(checkpoint, tmp_path / "packed")
    first = restore(tmp_path / "packed", tmp_path / "cache")
    stamp = (first / WEIGHTS).stat()
    second = restore(tmp_path / "packed", tmp_path / "cache")
    assert second == first
    assert (second / WEIGHTS).stat().st_ino == stamp.st_ino


def test_a_damaged_cache_entry_is_replaced(checkpoint: Path, tmp_path: Path) -> None:
    pack(checkpoint, tmp_path / "packed")
    folder = restore(tmp_path / "packed", tmp_path / "cache")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-8])
    assert (restore(tmp_path / "packed", tmp_path / "cache") / WEIGHTS).read_bytes() == whole
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [folder.name]


def test_a_damaged_pack_is_refused_and_leaves_nothing_behind(checkpoint: Path, tmp_path: Path) -> None:
    pack(checkpoint, tmp_path / "packed")
    weights = tmp_path / "packed" / PACKED_WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(PackedCheckpointDamaged):
        restore(tmp_path / "packed", tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def _restore(packed: Path, cache: Path) -> None:
    restore(packed, cache)


def test_processes_that_restore_at_once_agree(checkpoint: Path, tmp_path: Path) -> None:
    manifest = pack(checkpoint, tmp_path / "packed")
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "packed", tmp_path / "cache")
    racers = [context.Process(target=_restore, args=arguments) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=20)
    assert [racer.exitcode for racer in racers] == [0] * 4
    entries = list((tmp_path / "cache").iterdir())
    assert len(entries) == 1
    assert json.loads((entries[0] / "verified.json").read_text())["sha256"] == manifest.restored_sha256


def test_the_manifest_names_both_digests(checkpoint: Path, tmp_path: Path) -> None:
    assert pack(checkpoint, tmp_path / "packed") == read_manifest(tmp_path / "packed")
