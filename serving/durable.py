"""Files that outlive a crash: what is written here is on the disk, whole, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync_file(path: Path) -> None:
    """Makes a file's content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Makes creations, renames and deletions inside a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; it takes the name, durably, when the block ends without an error."""
    temporary = path.with_name(f"{path.name}.new")
    yield temporary
    sync_file(temporary)
    temporary.rename(path)
    sync_directory(path.parent)
