"""A generation's files, held still while they are published: linked, not copied, but for a live store. Blocking."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from retriever_service.generations import DENSE_DIRECTORY, LEXICAL_DIRECTORY
from retriever_service.replicas.published import Files, Seal
from retriever_service.snapshot_files import Manifest, sha256_of, write_snapshot

_PASSING = (".lock", ".new")  # Endings of files that belong to a process, not to the index.


def stage_snapshot(source: Path, target: Path) -> Files:
    """Holds a snapshot's files, and says what they are."""
    _link_files(source, target)
    return seal_files(target)


def stage_head(store: Path, target: Path, number: int) -> tuple[Manifest, Files]:
    """Freezes the state of a store that others write to; its indexes come along, so that no reader builds them.

    The indexes are taken before the store: an index that is behind its store is brought up to date when it is opened,
    one that is ahead would be built anew. Files that a merge takes away meanwhile make the index one to be built.
    """
    for name in (DENSE_DIRECTORY, LEXICAL_DIRECTORY):
        _link_files(store.parent / name, target / name)
    manifest = write_snapshot(store, target, number, "head")
    return manifest, seal_files(target)


def seal_files(directory: Path) -> Files:
    """Size and checksum of each file under a directory."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.name.endswith(_PASSING)]
    return {path.relative_to(directory).as_posix(): Seal(path.stat().st_size, sha256_of(path)) for path in paths}


def _link_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    # A walk, because a directory may vanish under it: indexes are built anew and merged meanwhile.
    paths = [Path(folder, name) for folder, _, names in os.walk(source) for name in names]
    # What names other files first (JSON, replaced by rename), then what it names.
    for path in sorted(paths, key=lambda path: path.suffix != ".json"):
        if path.name.endswith(_PASSING):
            continue
        held = target / path.relative_to(source)
        held.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # A merge has just deleted it.
            try:
                os.link(path, held)
            except OSError:  # Another file system, or one without links.
                shutil.copyfile(path, held)
