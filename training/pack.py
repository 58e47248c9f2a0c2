"""``python -m training.pack``: turn trained checkpoints into the default model, the folder that ships.

A tensor that several checkpoints hold is stored once, word embeddings also where one of them was rounded; a second
tower, in a folder of the first, is stored as its difference.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

import default_model
from serving.packed_checkpoint import MANIFEST, PACKED_WEIGHTS, WEIGHTS, PackManifest, sha256_of, write_weights
from serving.packed_tensors import (
    INDEX,
    Array,
    Coding,
    Difference,
    Rows,
    StoredTensor,
    TensorIndex,
    deflate,
    read_index,
    scales_member,
    values_member,
)

CHECKPOINTS = ("encoder", "generator", "fast")
SHARED = "shared"
_MAX_ROUNDING_STEPS = 2.0
_SMALL_FILES = (
    "config.json", "generation_config.json", "confidence.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
)  # fmt: skip


def pack(checkpoints: Mapping[str, Path], out: Path) -> PackManifest:
    """Packs Hugging Face checkpoints into the folder ``out``, replacing the checkpoints that it held.

    Args:
        checkpoints: Folder of each; it may hold a second tower's ``config.json`` and weights in a folder of its own.
        out: Made where it is missing.

    Raises:
        FileNotFoundError: A folder lacks ``model.safetensors``, ``config.json`` or ``tokenizer.json``.
        ValueError: A folder lies in ``out``.
    """
    for name, folder in checkpoints.items():
        if out.resolve() in folder.resolve().parents:
            raise ValueError(f"{name}: {folder} lies in {out}, whose checkpoints are replaced")
        for required in (WEIGHTS, "config.json", "tokenizer.json"):
            if not (folder / required).is_file():
                raise FileNotFoundError(f"{name}: {folder / required}")
    out.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINTS:
        shutil.rmtree(out / name, ignore_errors=True)
    with zipfile.ZipFile(out / PACKED_WEIGHTS, "w") as archive:
        writer = _Writer(archive)
        for name, folder in checkpoints.items():
            _copy_small_files(folder, out / name)
            for path in _weight_files(folder):
                config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
                vocab_size = config.get("vocab_size", 0)
                writer.add_file(name, path.relative_to(folder), _tensors(path), vocab_size=vocab_size)
        writer.finish()
    manifest = PackManifest(sha256_of(out / PACKED_WEIGHTS), _restored_digests(out / PACKED_WEIGHTS))
    (out / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    return manifest


def sizes(packed: Path) -> dict[str, int]:
    """Bytes of each checkpoint in a pack, without the tensors that it shares with others; those are ``SHARED``."""
    with zipfile.ZipFile(packed / PACKED_WEIGHTS) as archive:
        index = read_index(archive)
        stored = {info.filename: info.compress_size for info in archive.infolist()}
    users: dict[str, set[str]] = {}
    for file, names in index.files.items():
        for name in names.values():
            for used in filter(None, (name, index.tensors[name].base)):
                users.setdefault(used, set()).add(file.split("/")[0])
    found = {folder.name: sum(_file_sizes(folder)) for folder in packed.iterdir() if folder.name in CHECKPOINTS}
    found[SHARED] = stored[INDEX]
    for name, checkpoints in users.items():
        owner = next(iter(checkpoints)) if len(checkpoints) == 1 else SHARED
        found[owner] += stored[values_member(name)] + stored.get(scales_member(name), 0)
    return found


class _Writer:
    """Stores the float32 tensors of weight files, each once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._tensors: dict[str, StoredTensor] = {}
        self._files: dict[str, dict[str, str]] = {}
        self._rows: dict[str, Rows] = {}
        self._known: dict[bytes, str] = {}
        self._word_embeddings: list[str] = []

    def add_file(self, checkpoint: str, file: Path, tensors: Mapping[str, Array], *, vocab_size: int) -> None:
        """Stores a weight file; one in a folder of the checkpoint as its difference to the one beside the folder."""
        base = self._files[f"{checkpoint}/{file.name}"] if len(file.parts) > 1 else {}
        self._files[f"{checkpoint}/{file.as_posix()}"] = {
            name: self._add(f"{checkpoint}/{(file.parent / name).as_posix()}", tensor, base.get(name, ""), vocab_size)
            for name, tensor in sorted(tensors.items())
        }

    def finish(self) -> None:
        """Writes the index."""
        self._write(INDEX, TensorIndex(self._tensors, self._files).to_json().encode())

    def _add(self, name: str, tensor: Array, base: str, vocab_size: int) -> str:
        """Stores a tensor unless that is done; returns the name under which it is stored."""
        content = _content(tensor)
        if content not in self._known:
            self._known[content] = self._add_new(name, tensor, base, vocab_size)
        return self._known[content]

    def _add_new(self, name: str, tensor: Array, base: str, vocab_size: int) -> str:
        if not _is_matrix(tensor):
            self._store(name, tensor, Coding.PLAIN)
            return name
        if len(tensor) == vocab_size:
            for earlier in self._word_embeddings:
                if _is_rounded(tensor, self._rows[earlier]):
                    return earlier
            self._word_embeddings.append(name)
            base = ""
        rows = Rows.of(tensor)
        change = Difference.between(tensor, self._rows[base]) if base in self._rows else None
        if change is not None and len(deflate(change.values.tobytes())) < len(deflate(rows.values.tobytes())):
            self._store(name, change.values, Coding.DIFFERENCE, base=base, step=change.step)
            return name
        self._rows[name] = rows
        self._store(name, rows.values, Coding.ROWS)
        self._write(scales_member(name), _little_endian(rows.scales))
        return name

    def _store(self, name: str, values: Array, coding: Coding, *, base: str = "", step: int = 1) -> None:
        self._tensors[name] = StoredTensor(coding, values.dtype.name, values.shape, base, step)
        self._write(values_member(name), _little_endian(values))

    def _write(self, member: str, data: bytes) -> None:
        # A ZipInfo of its own has no time stamp: equal weights give equal packs.
        self._archive.writestr(zipfile.ZipInfo(member), deflate(data))


def _is_matrix(tensor: Array) -> bool:
    return tensor.ndim == 2 and min(tensor.shape) > 1 and tensor.dtype == np.float32


def _little_endian(values: Array) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _content(tensor: Array) -> bytes:
    return hashlib.sha256(f"{tensor.dtype} {tensor.shape}".encode() + np.ascontiguousarray(tensor).tobytes()).digest()


def _is_rounded(tensor: Array, rows: Rows) -> bool:
    """Whether a matrix is what the rows were made of, rounded: to bfloat16 in training, to int8 by an earlier pack.

    Each rounding moves a number by up to half a step: that of the rows, of bfloat16, of int8, and of bfloat16 again.
    """
    steps = np.abs(rows.matrix() - tensor) / rows.scales[:, None] if rows.values.shape == tensor.shape else np.inf
    return bool(np.max(steps) <= _MAX_ROUNDING_STEPS)


def _weight_files(folder: Path) -> Iterator[Path]:
    yield folder / WEIGHTS
    yield from sorted(folder.glob(f"*/{WEIGHTS}"))


def _tensors(path: Path) -> dict[str, Array]:
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in load_file(path).items()
    }


def _copy_small_files(source: Path, target: Path) -> None:
    for folder in (source, *sorted({path.parent for path in source.glob("*/config.json")})):
        for name in _SMALL_FILES:
            if (folder / name).is_file():
                copy = target / folder.relative_to(source) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, copy)


def _restored_digests(packed: Path) -> dict[str, dict[str, str]]:
    restored: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(packed) as archive, tempfile.TemporaryDirectory() as scratch:
        for file in read_index(archive).files:
            checkpoint, name = file.split("/", 1)
            restored.setdefault(checkpoint, {})[name] = write_weights(archive, file, Path(scratch) / WEIGHTS)
    return restored


def _file_sizes(folder: Path) -> Iterator[int]:
    return (path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str] | None = None) -> None:
    """Packs and prints what takes how much."""
    parser = argparse.ArgumentParser(prog="python -m training.pack", description=__doc__)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the encoder, with its pooling")
    parser.add_argument("--generator", type=Path, required=True, help="folder of the generator, with confidence.json")
    parser.add_argument("--fast", type=Path, default=None, help="folder of the generator for `--model fast`")
    parser.add_argument("--out", type=Path, default=default_model.PACK, help="packed folder (%(default)s)")
    flags = parser.parse_args(arguments)
    given = {name: getattr(flags, name) for name in CHECKPOINTS}
    pack({name: folder for name, folder in given.items() if folder is not None}, flags.out)
    table = Table("part", "MB")
    for name, size in sizes(flags.out).items():
        table.add_row(name, f"{size / 1e6:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
