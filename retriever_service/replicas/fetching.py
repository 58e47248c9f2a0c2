"""The reader's files: fetched beside what is served, checked, and moved into place when they are whole. Blocking."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from retriever_service.generations import RECORD_FILE, Generations
from retriever_service.replicas.object_store import ObjectStore
from retriever_service.replicas.published import DAMAGED, Files, Publication, PublishedCollection, Seal
from retriever_service.snapshot_files import sha256_of
from serving.durable import sync_directory
from serving.errors import FailedPrecondition


class Fetcher:
    """Brings published files into a reader's data directory."""

    def __init__(self, store: ObjectStore, data_dir: Path) -> None:
        """Prepares.

        Args:
            store: Where they are published.
            data_dir: The reader's; `collections` in it is the catalog's.
        """
        self._store, self._root, self._incoming = store, data_dir / "collections", data_dir / "incoming"

    def clear(self, publication: Publication | None) -> None:
        """Deletes what was fetched but is not of this publication: it may have been purged meanwhile."""
        collections = () if publication is None else publication.collections.values()
        wanted = {directory for one in collections for directory in one.files}
        for path in self._incoming.glob("*"):
            if path.name not in wanted:
                shutil.rmtree(path, ignore_errors=True)

    def fetch(self, name: str, published: PublishedCollection, present: Mapping[str, Path]) -> None:
        """Fetches those generations of a collection that are not there yet, and puts them into their places.

        Neither what an interrupted call has fetched nor what lies here already is fetched again.

        Args:
            name: The collection; one that is not there yet appears whole.
            published: As it is to be.
            present: Files by their SHA-256 (hex); they may be gone.

        Raises:
            FailedPrecondition: When an object is not what was published.
        """
        home, record = self._root / name, published.record
        missing = {
            number: path for number in record.directories if not (path := _path(home, published, number)).exists()
        }
        for path in missing.values():
            self._fetch_generation(self._incoming / path.name, published.files[path.name], present)
        target = home
        if not home.exists():
            target = self._root / f".new-{uuid.uuid4().hex}"
            target.mkdir()
            Generations.write_file(target / RECORD_FILE, record)
        for number in missing:
            path = _path(target, published, number)
            path.parent.mkdir(exist_ok=True)
            (self._incoming / path.name).rename(path)
            sync_directory(path.parent)
        if target != home:
            sync_directory(target)
            target.rename(home)
            sync_directory(self._root)

    def present(self, publication: Publication) -> dict[str, Path]:
        """Where the files of a publication that was fetched lie, by their SHA-256 (hex)."""
        return {
            seal.sha256: _path(self._root / name, one, number) / path
            for name, one in publication.collections.items()
            for number, directory in one.record.directories.items()
            for path, seal in one.files[directory].items()
        }

    def _fetch_generation(self, target: Path, files: Files, present: Mapping[str, Path]) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for path, seal in files.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            self._fetch_file(target / path, seal, present.get(seal.sha256))
        for directory, _, _ in os.walk(target):
            sync_directory(Path(directory))

    def _fetch_file(self, target: Path, seal: Seal, twin: Path | None) -> None:
        if _is_whole(target, seal):
            return
        if twin is not None:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
                os.link(twin, target)
                if _is_whole(target, seal):
                    return
        target.unlink(missing_ok=True)  # It may be a link by now.
        self._store.download(seal.name, target)
        if not _is_whole(target, seal):
            target.unlink()
            raise FailedPrecondition(f"{seal.name} is not what was published", reason=DAMAGED)


def _path(home: Path, published: PublishedCollection, number: int) -> Path:
    return Generations.path_in(home, published.record, number)


def _is_whole(path: Path, seal: Seal) -> bool:
    return path.is_file() and path.stat().st_size == seal.num_bytes and sha256_of(path) == seal.sha256
