"""Where publications lie: a directory that machines share, or an S3-compatible store. Blocking; for threads."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from serving.durable import sync_directory, sync_file
from serving.errors import InvalidRequest

_UNFINISHED = ".unfinished-"


class ObjectStore(Protocol):
    """Objects by name. Each is there whole, or not at all; a name that is written again is replaced at once."""

    def read(self, name: str) -> bytes | None:
        """A small object's content; None when there is none of this name."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Stores a small object."""
        ...

    def replace(self, name: str, content: bytes, expected: bytes | None) -> bool:
        """Stores a small object where its content is still the expected one, None for none; whether that was so."""
        ...

    def upload(self, name: str, source: Path) -> None:
        """Stores a file."""
        ...

    def download(self, name: str, target: Path) -> None:
        """Copies an object into a file, durably.

        Raises:
            OSError: Among others; there is none of this name, or the store does not answer.
        """
        ...

    def names(self, prefix: str) -> set[str]:
        """The objects whose names start with a prefix that ends with a slash."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; absent ones are no error."""
        ...


class DirectoryStore:
    """A directory. Names appear by rename."""

    def __init__(self, root: Path) -> None:
        """Prepares; the directory is made when something is written."""
        self._root = root

    def read(self, name: str) -> bytes | None:
        """A small object's content; None when there is none of this name."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Stores a small object."""
        temporary = self._temporary(name)
        temporary.write_bytes(content)
        self._finish(temporary, name)

    def replace(self, name: str, content: bytes, expected: bytes | None) -> bool:
        """Stores a small object where its content is still the expected one, None for none; whether that was so."""
        lock = self._root / f"{name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as held:  # A lock ends with its process, on every machine that shares the directory.
            fcntl.flock(held, fcntl.LOCK_EX)
            if self.read(name) != expected:
                return False
            self.write(name, content)
            return True

    def upload(self, name: str, source: Path) -> None:
        """Stores a file."""
        temporary = self._temporary(name)
        shutil.copyfile(source, temporary)
        self._finish(temporary, name)

    def download(self, name: str, target: Path) -> None:
        """Copies an object into a file, durably."""
        shutil.copyfile(self._root / name, target)
        sync_file(target)

    def names(self, prefix: str) -> set[str]:
        """The objects whose names start with a prefix that ends with a slash; what was never finished is deleted."""
        if not (self._root / prefix).exists():
            return set()
        found = set()
        for path in (self._root / prefix).iterdir():
            if path.name.startswith(_UNFINISHED):
                path.unlink(missing_ok=True)
            else:
                found.add(prefix + path.name)
        return found

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; absent ones are no error."""
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        folder = (self._root / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{_UNFINISHED}{Path(name).name}"

    def _finish(self, temporary: Path, name: str) -> None:
        sync_file(temporary)
        os.replace(temporary, self._root / name)
        sync_directory(temporary.parent)


def open_store(url: str) -> ObjectStore:
    """The store of a URL: file:///a/directory or s3://bucket/prefix.

    Raises:
        InvalidRequest: When it is neither.
        FailedPrecondition: When S3 is asked for and its client is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/") and parts.netloc in ("", "localhost"):
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        from retriever_service.replicas.s3 import S3Store

        return S3Store(url)
    raise InvalidRequest(f"{url!r} is neither file:///a/directory nor s3://bucket/prefix")


def first_line(error: Exception) -> str:
    """An error in one line: those of an S3 client have dozens."""
    return repr(error).replace("\\n", "\n").split("\n")[0][:500]
