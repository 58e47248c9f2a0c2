"""Backups: a copy of every collection, taken while the retriever serves; and the way back, on any machine.

`python -m retriever_service.backup create|verify|restore`, run where the data directory is. Only what cannot be derived
is copied: stores, manifests and records; lexical indexes are built anew when a restored collection is first opened.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from retriever_service import schema
from retriever_service.catalog import Catalog
from retriever_service.generations import RECORD_FILE, STORE_FILE, Generations, Record
from retriever_service.snapshot_files import MANIFEST_FILE, sha256_of
from serving import durable
from serving.errors import FailedPrecondition, RagError

FORMAT = 1
BACKUP_FILE = "backup.json"
_COLLECTIONS = "collections"
_NUM_TRIES = 5
_ACTIONS = {"create": ("data_dir", "target"), "verify": ("source",), "restore": ("source", "data_dir")}


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds: its collections, and size and SHA-256 (hex) of each file by relative path."""

    created_at: float
    collections: tuple[str, ...]
    files: dict[str, tuple[int, str]]
    format: int = FORMAT

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(size for size, _ in self.files.values())


def create(data_dir: Path, target: Path) -> Backup:
    """Copies every collection of a data directory, whether it is being served or not.

    Each collection is copied as of one moment during the call. The target appears complete, or not at all.

    Raises:
        FailedPrecondition: When the target exists, there is no collection, or one changes too often meanwhile.
    """
    if target.exists():
        raise FailedPrecondition(f"{target} exists: give a new directory", reason="TARGET_EXISTS")
    making = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    names = []
    for directory in sorted((data_dir / _COLLECTIONS).glob("[!.]*")):
        if Generations.is_collection(directory):
            _copy_collection(directory, making / _COLLECTIONS / directory.name)
            names.append(directory.name)
    if not names:
        shutil.rmtree(making)
        raise FailedPrecondition(f"{data_dir} holds no collections", reason="NOTHING_TO_BACK_UP")
    paths = sorted(path for path in making.rglob("*") if path.is_file())
    files = {str(path.relative_to(making)): (path.stat().st_size, sha256_of(path)) for path in paths}
    backup = Backup(time.time(), tuple(names), files)
    (making / BACKUP_FILE).write_text(json.dumps(asdict(backup), indent=1), encoding="utf-8")
    for path in [*paths, making / BACKUP_FILE]:
        durable.sync_file(path)
    for path in {path.parent for path in paths} | {making}:
        durable.sync_directory(path)
    making.rename(target)
    durable.sync_directory(target.parent)
    return backup


def verify(source: Path) -> Backup:
    """Checks every file of a backup against its checksum.

    Raises:
        FailedPrecondition: When it is no backup, of a newer format, or a file is not as it was written.
    """
    try:
        given = json.loads((source / BACKUP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{source} is no backup: {error}", reason="NO_BACKUP") from error
    schema.check_format(given["format"], FORMAT, source)
    files = {name: (size, digest) for name, (size, digest) in given["files"].items()}
    backup = Backup(given["created_at"], tuple(given["collections"]), files)
    for name, (size, digest) in backup.files.items():
        path = source / name
        if not path.is_file() or path.stat().st_size != size or sha256_of(path) != digest:
            raise FailedPrecondition(f"backup is damaged: {path} is not as written", reason="BACKUP_DAMAGED")
    return backup


def restore(source: Path, data_dir: Path) -> Backup:
    """Checks a backup and puts its collections into a data directory that has none and that nobody serves: all or none.

    Raises:
        FailedPrecondition: When the backup is damaged, or the directory is in use or holds collections.
    """
    backup = verify(source)
    catalog = Catalog(data_dir)
    catalog.lock()
    try:
        if catalog.names():
            raise FailedPrecondition(f"{data_dir} holds collections already", reason="TARGET_EXISTS")
        making = data_dir / ".restoring"
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(source / _COLLECTIONS, making)
        for path in [making, *making.rglob("*")]:
            durable.sync_directory(path) if path.is_dir() else durable.sync_file(path)
        making.rename(data_dir / _COLLECTIONS)  # In the place of an empty one.
        durable.sync_directory(data_dir)
    finally:
        catalog.unlock()
    return backup


def _copy_collection(directory: Path, target: Path) -> None:
    for _ in range(_NUM_TRIES):
        shutil.rmtree(target, ignore_errors=True)
        record = Generations.read(directory)
        try:
            _copy_generations(directory, record, target)
        except (OSError, sqlite3.Error):
            if Generations.read(directory) == record:
                raise
            continue
        # What was purged, replaced or dropped meanwhile must not be in the copy.
        if Generations.read(directory).directories == record.directories:
            return
    raise FailedPrecondition(f"{directory} changed {_NUM_TRIES} times while it was copied: try again", reason="BUSY")


def _copy_generations(directory: Path, record: Record, target: Path) -> None:
    if record.successor is not None and not record.is_successor_complete:
        record = record.without(record.successor)
    # The head last: what follows it must not be ahead of it.
    for number in sorted(record.directories, key=lambda number: number == record.head):
        source, copy = Generations.path_in(directory, record, number), Generations.path_in(target, record, number)
        copy.mkdir(parents=True)
        if (source / MANIFEST_FILE).exists():
            for name in (STORE_FILE, MANIFEST_FILE):
                shutil.copyfile(source / name, copy / name)
        else:
            schema.copy(source / STORE_FILE, copy / STORE_FILE)
    Generations.write_file(target / RECORD_FILE, record)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one action and writes what it did as JSON."""
    parser = argparse.ArgumentParser(prog="python -m retriever_service.backup", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for name, words in _ACTIONS.items():
        action = actions.add_parser(name)
        for word in words:
            action.add_argument(word, type=Path)
    given = parser.parse_args(argv)
    try:
        if given.action == "create":
            backup = create(given.data_dir, given.target)
        else:
            backup = verify(given.source) if given.action == "verify" else restore(given.source, given.data_dir)
    except RagError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    done = {"collections": backup.collections, "num_files": len(backup.files), "num_bytes": backup.num_bytes}
    sys.stdout.write(json.dumps(done) + os.linesep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
