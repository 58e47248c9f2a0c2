"""The collections on disk: one directory each, under a data directory that one process owns."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from retriever_service.collection import CollectionSettings
from retriever_service.dense.exact import ExactIndex
from retriever_service.dense_index import DenseIndex, MakeDenseIndex, OpenSource, VectorSource
from retriever_service.generations import STORE_FILE, Generations
from retriever_service.live_collection import LiveCollection
from retriever_service.store import Store
from retriever_service.stored_settings import settings_to_json
from retriever_service.writing import Writer
from serving.durable import sync_directory
from serving.errors import FailedPrecondition

_UNFINISHED = "."  # Names of directories being made or being dropped start with it.


def exact_index(directory: Path, settings: CollectionSettings, open_source: OpenSource) -> DenseIndex:
    """Exact search in memory, whatever the size."""
    return ExactIndex(settings.encoder.dim)


def _nothing() -> AbstractContextManager[VectorSource]:
    raise AssertionError("an index that is only tried reads nothing")


class Catalog:
    """Finds, makes, opens and drops collections. Blocking; for threads."""

    def __init__(
        self,
        data_dir: Path,
        make_dense_index: MakeDenseIndex = exact_index,
        make_collection: Callable[[Path, MakeDenseIndex], LiveCollection] = LiveCollection,
        check_new: Callable[[CollectionSettings], None] = lambda _: None,
    ) -> None:
        """Prepares; `lock` takes the directory.

        Args:
            data_dir: Made when missing.
            make_dense_index: The dense index of a generation.
            make_collection: Opens a collection's directory.
            check_new: Raises when no collection of these settings can be made.
        """
        self._data_dir, self._root = data_dir, data_dir / "collections"
        self._make_dense_index, self._make_collection = make_dense_index, make_collection
        self._check_new = check_new
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

    @property
    def keeps_sentence_vectors(self) -> bool:
        """Whether collections do that are made from now on and do not say."""
        return True

    def names(self) -> list[str]:
        """The collections there are, in order."""
        entries = (path for path in self._root.iterdir() if Generations.is_collection(path))
        return sorted(path.name for path in entries if not path.name.startswith(_UNFINISHED))

    def has(self, name: str) -> bool:
        """Whether there is such a collection."""
        return Generations.is_collection(self._root / name)

    def create(self, settings: CollectionSettings) -> None:
        """Makes an empty collection: complete, or not at all.

        Raises:
            RagError: When its settings ask for a dense index that cannot be made.
        """
        self._check_new(settings)
        self._make_dense_index(self._root, settings, _nothing).close()
        making = self._root / f"{_UNFINISHED}new-{uuid.uuid4().hex}"
        making.mkdir()
        generations = Generations(making)
        store = Store.create(generations.path(1) / STORE_FILE)
        now = str(time.time())
        meta = {"settings": settings_to_json(settings), "store_id": uuid.uuid4().hex, "created_at": now}
        Writer(store, {}).set_meta(meta)
        store.close()
        sync_directory(generations.path(1))
        sync_directory(making)
        making.rename(self._root / settings.name)
        sync_directory(self._root)

    def open(self, name: str) -> LiveCollection:
        """Opens a collection; it wants `start`."""
        return self._make_collection(self._root / name, self._make_dense_index)

    def drop(self, name: str) -> None:
        """Deletes a closed collection: it is gone when this returns, and after a crash meanwhile."""
        dropping = self._root / f"{_UNFINISHED}dropped-{uuid.uuid4().hex}"
        os.rename(self._root / name, dropping)
        sync_directory(self._root)
        shutil.rmtree(dropping)
