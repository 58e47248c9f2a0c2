"""The collections on disk: one directory each, under a data directory that one process owns."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from retriever_service.collection import CollectionSettings, EncoderIdentity, FieldType, Metric
from retriever_service.dense_index import DenseIndex
from retriever_service.fusion import Fusion, FusionMethod
from retriever_service.lexical_index import sync_directory
from retriever_service.live_collection import STORE_FILE, LiveCollection
from retriever_service.store import Store
from retriever_service.writing import Writer
from serving.errors import FailedPrecondition

_UNFINISHED = "."  # Names of directories being made or being dropped start with it.


class Catalog:
    """Finds, makes, opens and drops collections. Blocking; for threads."""

    def __init__(self, data_dir: Path, make_dense_index: Callable[[int], DenseIndex]) -> None:
        """Prepares; `lock` takes the directory.

        Args:
            data_dir: Made when missing.
            make_dense_index: An empty dense index of D dimensions.
        """
        self._data_dir, self._root = data_dir, data_dir / "collections"
        self._make_dense_index = make_dense_index
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Takes the data directory for this process and clears what an interrupted one left half made.

        Raises:
            FailedPrecondition: When another process has it.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        self._lock = (self._data_dir / "lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FailedPrecondition(
                f"data directory {self._data_dir} is in use by another retriever", reason="DATA_DIR_IN_USE"
            ) from error
        for leftover in self._root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def unlock(self) -> None:
        """Gives the data directory back."""
        if self._lock is not None:
            self._lock.close()

    def names(self) -> list[str]:
        """The collections there are, in order."""
        entries = (path for path in self._root.iterdir() if (path / STORE_FILE).is_file())
        return sorted(path.name for path in entries if not path.name.startswith(_UNFINISHED))

    def create(self, settings: CollectionSettings) -> None:
        """Makes an empty collection: complete, or not at all."""
        making = self._root / f"{_UNFINISHED}new-{uuid.uuid4().hex}"
        making.mkdir()
        store = Store.create(making / STORE_FILE)
        now = str(time.time())
        meta = {"settings": settings_to_json(settings), "store_id": uuid.uuid4().hex, "created_at": now}
        Writer(store, {}).set_meta(meta)
        store.close()
        sync_directory(making)
        making.rename(self._root / settings.name)
        sync_directory(self._root)

    def open(self, name: str) -> LiveCollection:
        """Opens a collection; it wants `start`."""
        directory = self._root / name
        store = Store(directory / STORE_FILE)
        with store.reading() as reader:
            settings = settings_from_json(reader.meta("settings"))
        return LiveCollection(directory, settings, store, self._make_dense_index(settings.encoder.dim))

    def drop(self, name: str) -> None:
        """Deletes a closed collection: it is gone when this returns, and after a crash meanwhile."""
        dropping = self._root / f"{_UNFINISHED}dropped-{uuid.uuid4().hex}"
        os.rename(self._root / name, dropping)
        sync_directory(self._root)
        shutil.rmtree(dropping)


def settings_to_json(settings: CollectionSettings) -> str:
    """Settings as the store keeps them."""
    return json.dumps(asdict(settings))


def settings_from_json(text: str) -> CollectionSettings:
    """The inverse of `settings_to_json`."""
    given: dict[str, Any] = json.loads(text)
    fusion = given["fusion"]
    return CollectionSettings(
        **{
            **given,
            "metric": Metric(given["metric"]),
            "encoder": EncoderIdentity(**given["encoder"]),
            "filterable_fields": {name: FieldType(kind) for name, kind in given["filterable_fields"].items()},
            "fusion": Fusion(**{**fusion, "method": FusionMethod(fusion["method"])}),
        }
    )
