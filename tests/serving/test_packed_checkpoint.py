"""Restoring is bit for bit the same, only what is asked for, and the cache survives races and damage."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from serving.packed_checkpoint import (
    MANIFEST,
    PACKED_WEIGHTS,
    WEIGHTS,
    PackedCheckpointDamaged,
    read_manifest,
    restore,
    sha256_of,
)
from training.pack import pack


def save(folder: Path, *, seed: int) -> Path:
    """A checkpoint of the shape that every Hugging Face directory has, with a table that all seeds share."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    tensors = {
        "table": np.random.default_rng(99).normal(size=(40, 8)).astype(np.float32),
        "layer": random.normal(size=(8, 8)).astype(np.float32),
        "bias": random.normal(size=8).astype(np.float32),
    }
    save_file(tensors, folder / WEIGHTS)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps({"seed": seed}))
    return folder


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    encoder = save(tmp_path / "encoder", seed=0)
    save(encoder / "query", seed=1)
    pack({"encoder": encoder, "generator": save(tmp_path / "generator", seed=2)}, tmp_path / "packed")
    return tmp_path / "packed"


def test_every_restored_file_has_the_digest_of_the_manifest(packed: Path, tmp_path: Path) -> None:
    manifest = read_manifest(packed)
    assert manifest.packed_sha256 == sha256_of(packed / PACKED_WEIGHTS)
    assert {name: set(files) for name, files in manifest.restored.items()} == {
        "encoder": {WEIGHTS, f"query/{WEIGHTS}"},
        "generator": {WEIGHTS},
    }
    for name, files in manifest.restored.items():
        folder = restore(packed, name, tmp_path / "cache")
        assert {file: sha256_of(folder / file) for file in files} == files


def test_a_second_tower_and_the_small_files_are_restored_with_the_first(packed: Path, tmp_path: Path) -> None:
    folder = restore(packed, "encoder", tmp_path / "cache")
    assert json.loads((folder / "query/config.json").read_text()) == {"seed": 1}
    assert json.loads((folder / "tokenizer.json").read_text()) == {"seed": 0}
    first, second = load_file(folder / WEIGHTS), load_file(folder / "query" / WEIGHTS)
    assert np.array_equal(first["table"], second["table"])
    assert not np.array_equal(first["layer"], second["layer"])


def test_only_the_checkpoint_asked_for_is_restored(packed: Path, tmp_path: Path) -> None:
    restore(packed, "generator", tmp_path / "cache")
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()] == ["generator"]


def test_a_checkpoint_that_is_not_packed_is_named_with_those_that_are(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'fast'; it holds encoder, generator"):
        restore(packed, "fast", tmp_path / "cache")


def test_restoring_elsewhere_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    first, second = (restore(packed, "encoder", tmp_path / cache) for cache in ("one", "two"))
    assert first.name == second.name
    for path in first.rglob("*.safetensors"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_a_restored_checkpoint_is_written_once(packed: Path, tmp_path: Path) -> None:
    first = restore(packed, "generator", tmp_path / "cache")
    stamp = (first / WEIGHTS).stat()
    second = restore(packed, "generator", tmp_path / "cache")
    assert second == first
    assert (second / WEIGHTS).stat().st_ino == stamp.st_ino


def test_a_changed_small_file_makes_another_restored_checkpoint(packed: Path, tmp_path: Path) -> None:
    before = restore(packed, "generator", tmp_path / "cache")
    (packed / "generator" / "confidence.json").write_text("{}")
    after = restore(packed, "generator", tmp_path / "cache")
    assert (after / "confidence.json").exists()
    assert not (before / "confidence.json").exists()


@pytest.mark.parametrize("damaged", [WEIGHTS, f"query/{WEIGHTS}"])
def test_a_damaged_cache_entry_is_replaced(packed: Path, tmp_path: Path, damaged: str) -> None:
    folder = restore(packed, "encoder", tmp_path / "cache")
    whole = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(whole[:-8])
    assert (restore(packed, "encoder", tmp_path / "cache") / damaged).read_bytes() == whole
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [folder.name]


def test_a_cache_entry_that_was_only_touched_is_kept(packed: Path, tmp_path: Path) -> None:
    folder = restore(packed, "generator", tmp_path / "cache")
    (folder / WEIGHTS).touch()
    number = (folder / WEIGHTS).stat().st_ino
    assert (restore(packed, "generator", tmp_path / "cache") / WEIGHTS).stat().st_ino == number


def test_a_damaged_pack_is_refused_and_leaves_nothing_behind(packed: Path, tmp_path: Path) -> None:
    data = bytearray((packed / PACKED_WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (packed / PACKED_WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(PackedCheckpointDamaged):
        restore(packed, "encoder", tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_a_pack_of_another_format_is_refused(packed: Path, tmp_path: Path) -> None:
    manifest = json.loads((packed / MANIFEST).read_text())
    (packed / MANIFEST).write_text(json.dumps({**manifest, "format": "rows-int4-9"}))
    with pytest.raises(PackedCheckpointDamaged, match="rows-int4-9"):
        restore(packed, "encoder", tmp_path / "cache")


def _restore(packed: Path, cache: Path) -> None:
    restore(packed, "encoder", cache)


def test_processes_that_restore_at_once_agree(packed: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_restore, args=(packed, tmp_path / "cache")) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)
    assert [racer.exitcode for racer in racers] == [0] * 4
    (entry,) = (tmp_path / "cache").iterdir()
    recorded = json.loads((entry / "verified.json").read_text())
    digests = {file: record["sha256"] for file, record in recorded.items()}
    assert digests == read_manifest(packed).restored["encoder"]
