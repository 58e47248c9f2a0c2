"""Ship a checkpoint at a quarter of its size, and get a plain one back, bit for bit the same everywhere.

Packing stores every matrix as int8 with one float32 scale per row (symmetric), everything else as float32. Restoring
multiplies int8 by scale in float32, which IEEE 754 makes exact to the bit on every machine; the restored file's digest
is part of the manifest. No torch: numpy and safetensors only.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"
PACKED_WEIGHTS = "packed.safetensors"
MANIFEST = "manifest.json"
_VERIFIED = "verified.json"
_SCALE_SUFFIX = ".row_scale"
_COPIED = ("config.json", "generation_config.json", "confidence.json", "tokenizer.json", "tokenizer_config.json",
           "special_tokens_map.json", "vocab.txt")  # fmt: skip

Array: TypeAlias = npt.NDArray[np.generic]


class PackedCheckpointDamaged(Exception):
    """A packed or restored file does not have the digest its manifest names."""


@dataclass(frozen=True, slots=True)
class PackManifest:
    """SHA-256 digests that tie a pack to what it restores to."""

    packed_sha256: str
    restored_sha256: str
    format: str = "rows-int8-1"

    @property
    def key(self) -> str:
        """Short name of this pack, for folders."""
        return self.packed_sha256[:16]


def quantize_rows(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 per row: ``values * scales[:, None]`` is within half a scale of ``matrix``.

    Returns:
        int8 (R, C) in [-127, 127] and float32 scales (R,); a row of zeros has scale 1.
    """
    largest = np.abs(matrix).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    values = np.clip(np.rint(matrix / scales[:, None]), -127, 127).astype(np.int8)
    return values, scales


def dequantize_rows(values: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The float32 matrix (R, C) of ``quantize_rows``'s output; exact, the same bits on every machine."""
    return values.astype(np.float32) * scales[:, None]


def pack(checkpoint: Path, out: Path) -> PackManifest:
    """Pack the Hugging Face checkpoint in ``checkpoint`` into ``out``, which is created.

    Raises:
        FileNotFoundError: there is no ``model.safetensors`` or ``config.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    packed: dict[str, Array] = {}
    for name, tensor in load_file(checkpoint / WEIGHTS).items():
        if tensor.ndim == 2 and min(tensor.shape) > 1:
            packed[name], packed[name + _SCALE_SUFFIX] = quantize_rows(tensor.astype(np.float32))
        else:
            packed[name] = tensor.astype(np.float32) if np.issubdtype(tensor.dtype, np.floating) else tensor
    _save(packed, out / PACKED_WEIGHTS)
    _copy_small_files(checkpoint, out)
    with tempfile.TemporaryDirectory() as scratch:
        restored = Path(scratch) / WEIGHTS
        _save(_unpacked(load_file(out / PACKED_WEIGHTS)), restored)
        manifest = PackManifest(_digest(out / PACKED_WEIGHTS), _digest(restored))
    (out / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(packed: Path) -> PackManifest:
    """The manifest of a packed folder.

    Raises:
        FileNotFoundError: ``packed`` holds no manifest.
    """
    return PackManifest(**json.loads((packed / MANIFEST).read_text(encoding="utf-8")))


def restore(packed: Path, cache: Path) -> Path:
    """A plain float32 Hugging Face checkpoint of ``packed``, below ``cache``, written once and re-used.

    Safe under concurrent processes: each writes a folder of its own and renames it; the first wins. A cached weight
    file is re-used when its size and modification time are those recorded when its digest was verified, and digested
    again when they are not. Small files come from ``packed`` each time their bytes differ.

    Raises:
        PackedCheckpointDamaged: the packed file, or what it restores to, does not match the manifest.
        FileNotFoundError: ``packed`` holds no pack.
    """
    manifest = read_manifest(packed)
    small = hashlib.sha256(b"".join((packed / name).read_bytes() for name in _COPIED if (packed / name).exists()))
    target = cache / f"generator-{manifest.key}-{small.hexdigest()[:8]}"
    if _is_verified(target, manifest):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=cache))
    own.chmod(0o755)  # mkdtemp's 0700 would lock out the user of an image that was built by root
    try:
        _write_restored(packed, own, manifest)
        _publish(own, target, manifest)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return target


def _write_restored(packed: Path, folder: Path, manifest: PackManifest) -> None:
    if _digest(packed / PACKED_WEIGHTS) != manifest.packed_sha256:
        raise PackedCheckpointDamaged(f"{packed / PACKED_WEIGHTS} is not the file its manifest names")
    weights = folder / WEIGHTS
    _save(_unpacked(load_file(packed / PACKED_WEIGHTS)), weights)
    if _digest(weights) != manifest.restored_sha256:
        raise PackedCheckpointDamaged(f"{packed} restores to other weights than its manifest names")
    _copy_small_files(packed, folder)
    _record_verified(folder, manifest)


def _publish(own: Path, target: Path, manifest: PackManifest) -> None:
    try:
        os.rename(own, target)
    except OSError:
        if _is_verified(target, manifest):
            return
        stale = Path(tempfile.mkdtemp(prefix=target.name + ".stale.", dir=target.parent))
        os.rename(target, stale / "checkpoint")
        os.rename(own, target)
        shutil.rmtree(stale, ignore_errors=True)


def _is_verified(folder: Path, manifest: PackManifest) -> bool:
    try:
        record = json.loads((folder / _VERIFIED).read_text(encoding="utf-8"))
        status = (folder / WEIGHTS).stat()
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    if record.get("sha256") != manifest.restored_sha256:
        return False
    if record.get("bytes") == status.st_size and record.get("modified_ns") == status.st_mtime_ns:
        return True
    if _digest(folder / WEIGHTS) != manifest.restored_sha256:
        return False
    _record_verified(folder, manifest)
    return True


def _record_verified(folder: Path, manifest: PackManifest) -> None:
    status = (folder / WEIGHTS).stat()
    record = {"sha256": manifest.restored_sha256, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    partial = folder / f"{_VERIFIED}.{os.getpid()}"
    partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
    os.replace(partial, folder / _VERIFIED)


def _unpacked(packed: Mapping[str, Array]) -> dict[str, Array]:
    restored: dict[str, Array] = {}
    for name, tensor in packed.items():
        if name.endswith(_SCALE_SUFFIX):
            continue
        scales = packed.get(name + _SCALE_SUFFIX)
        restored[name] = (
            tensor if scales is None else dequantize_rows(tensor.astype(np.int8), scales.astype(np.float32))
        )
    return restored


def _save(tensors: dict[str, Array], path: Path) -> None:
    """Write ``tensors`` in name order, so that equal tensors give equal bytes."""
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    save_file(ordered, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes 0600, which would make package data unreadable for others


def _copy_small_files(source: Path, target: Path) -> None:
    if not (source / "config.json").exists():
        raise FileNotFoundError(source / "config.json")
    for name in _COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
