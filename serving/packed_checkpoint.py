"""Several checkpoints in one small folder, and plain ones from it again, bit for bit the same everywhere.

A pack is a folder with a zip file of all weights, each tensor once however many checkpoints hold it (`packed_tensors`),
the other files of each checkpoint as they are, and a manifest with the digest of every weight file that it restores to.
Only the checkpoint that is asked for is restored. No torch. `training.pack` writes packs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from serving.packed_tensors import read_tensors

WEIGHTS = "model.safetensors"
PACKED_WEIGHTS = "weights.zip"
MANIFEST = "manifest.json"
FORMAT = "shared-rows-2"
DEFAULT_CACHE = Path("~/.cache/rag-serving")
_VERIFIED = "verified.json"


class PackedCheckpointDamaged(Exception):
    """A packed or restored file does not have the digest its manifest names."""


@dataclass(frozen=True, slots=True)
class PackManifest:
    """SHA-256 digests that tie a pack to what it restores to.

    Attributes:
        packed_sha256: Of the zip file.
        restored: By checkpoint and weight file, as "encoder" and "model.safetensors": of the restored file.
    """

    packed_sha256: str
    restored: Mapping[str, Mapping[str, str]]
    format: str = FORMAT


def read_manifest(pack: Path) -> PackManifest:
    """The manifest of a pack.

    Raises:
        FileNotFoundError: There is none.
        PackedCheckpointDamaged: It is of another format.
    """
    manifest = PackManifest(**json.loads((pack / MANIFEST).read_text(encoding="utf-8")))
    if manifest.format != FORMAT:
        raise PackedCheckpointDamaged(f"{pack / MANIFEST}: the format is {manifest.format!r}, not {FORMAT!r}")
    return manifest


def restore(pack: Path, checkpoint: str, cache: Path) -> Path:
    """A plain float32 Hugging Face checkpoint out of a pack, below `cache`, written once and re-used.

    Safe under concurrent processes: each writes a folder of its own and renames it; the first wins. A cached weight
    file is re-used when its size and modification time are those recorded when its digest was verified, and digested
    again when they are not.

    Args:
        pack: Folder of the pack.
        checkpoint: Which of its checkpoints.
        cache: Made where it is missing; "~" is the user's home.

    Raises:
        PackedCheckpointDamaged: The zip file, or what it restores to, does not match the manifest.
        FileNotFoundError: There is no pack, or it lacks that checkpoint.
    """
    manifest = read_manifest(pack)
    if checkpoint not in manifest.restored:
        there = ", ".join(manifest.restored)
        raise FileNotFoundError(f"{pack} holds no checkpoint {checkpoint!r}; it holds {there}")
    digests, cache = manifest.restored[checkpoint], cache.expanduser()
    target = cache / f"{checkpoint}-{_key(pack / checkpoint, digests)}"
    if _is_verified(target, digests):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=cache))
    own.chmod(0o755)  # mkdtemp's 0700 would lock out the user of an image that was built by root
    try:
        _write_restored(pack, checkpoint, manifest, own)
        _publish(own, target, digests)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return target


def write_weights(archive: zipfile.ZipFile, file: str, path: Path) -> str:
    """Writes a weight file of a pack in name order, so that equal tensors give equal bytes.

    Returns:
        Its SHA-256.
    """
    tensors = read_tensors(archive, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes 0600
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """The SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(folder: Path, digests: Mapping[str, str]) -> str:
    """Short name of all the bytes of a restored checkpoint."""
    total = hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode())
    for path, name in _small_files(folder):
        total.update(f"{name} {sha256_of(path)}".encode())
    return total.hexdigest()[:16]


def _small_files(folder: Path) -> list[tuple[Path, str]]:
    """The files beside a checkpoint's weights, with their names in its folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, path.relative_to(folder).as_posix()) for path in paths]


def _write_restored(pack: Path, checkpoint: str, manifest: PackManifest, folder: Path) -> None:
    packed = pack / PACKED_WEIGHTS
    if sha256_of(packed) != manifest.packed_sha256:
        raise PackedCheckpointDamaged(f"{packed} is not the file its manifest names")
    for source, name in _small_files(pack / checkpoint):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)
    with zipfile.ZipFile(packed) as archive:
        for file, digest in manifest.restored[checkpoint].items():
            if write_weights(archive, f"{checkpoint}/{file}", folder / file) != digest:
                raise PackedCheckpointDamaged(f"{packed} restores to other weights {file!r} than its manifest names")
    _record_verified(folder, manifest.restored[checkpoint])


def _publish(own: Path, target: Path, digests: Mapping[str, str]) -> None:
    try:
        os.rename(own, target)
    except OSError:
        if _is_verified(target, digests):
            return
        stale = Path(tempfile.mkdtemp(prefix=target.name + ".stale.", dir=target.parent))
        os.rename(target, stale / "checkpoint")
        os.rename(own, target)
        shutil.rmtree(stale, ignore_errors=True)


def _is_verified(folder: Path, digests: Mapping[str, str]) -> bool:
    try:
        record = json.loads((folder / _VERIFIED).read_text(encoding="utf-8"))
        if record == _record_of(folder, digests):
            return True
        if any(sha256_of(folder / file) != digest for file, digest in digests.items()):
            return False
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    _record_verified(folder, digests)
    return True


def _record_of(folder: Path, digests: Mapping[str, str]) -> dict[str, dict[str, str | int]]:
    """What is recorded of weight files with these digests, as they are now."""
    status = {file: (folder / file).stat() for file in digests}
    return {
        file: {"sha256": digest, "bytes": status[file].st_size, "modified_ns": status[file].st_mtime_ns}
        for file, digest in digests.items()
    }


def _record_verified(folder: Path, digests: Mapping[str, str]) -> None:
    partial = folder / f"{_VERIFIED}.{os.getpid()}"
    partial.write_text(json.dumps(_record_of(folder, digests)) + "\n", encoding="utf-8")
    os.replace(partial, folder / _VERIFIED)
