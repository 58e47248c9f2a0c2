"""Which index generations a collection has, and where: one small file, replaced as a whole.

The file is the only truth about generations. Creating, activating, replacing and dropping one is a single replacement
of it; a directory that it does not name is the rest of something interrupted, and is deleted.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from retriever_service import schema
from retriever_service.collection import CollectionSettings
from retriever_service.fusion import Fusion
from retriever_service.stored_settings import fusion_from_json
from serving.durable import replacing, sync_directory, sync_file
from serving.errors import FailedPrecondition

FORMAT = 1
RECORD_FILE, STORE_FILE = "generations.json", "store.sqlite"
LEXICAL_DIRECTORY, DENSE_DIRECTORY = "lexical", "dense"
_DIRECTORY = "generations"


@dataclass(frozen=True, slots=True)
class Scoring:
    """Temperature and fusion of a frozen generation, where they were changed after it was frozen."""

    temperature: float
    fusion: Fusion

    def apply(self, settings: CollectionSettings) -> CollectionSettings:
        """The settings with this scoring."""
        return replace(settings, temperature=self.temperature, fusion=self.fusion)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A purge that was begun: ids and source names to be erased from every generation."""

    ids: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What the file says. Numbers name generations and are never used twice.

    Attributes:
        head: The generation that takes the writes.
        active: The one that is served: the head, a snapshot, or a complete successor.
        next_number: The next generation's number.
        directories: Each generation's directory.
        successor: A generation with other vectors that follows the head until it takes over.
        is_successor_complete: It has every vector, and can be served.
        scorings: Changed scorings of frozen generations.
        erasure: A purge that is not finished.
    """

    head: int
    active: int
    next_number: int
    directories: Mapping[int, str]
    successor: int | None = None
    is_successor_complete: bool = False
    scorings: Mapping[int, Scoring] = field(default_factory=dict)
    erasure: Erasure | None = None

    @property
    def frozen(self) -> tuple[int, ...]:
        """The snapshots, newest first."""
        return tuple(sorted(self.directories.keys() - {self.head, self.successor}, reverse=True))

    def placed(self, number: int, directory: str) -> Record:
        """The record with a generation in this directory."""
        return replace(self, directories={**self.directories, number: directory})

    def without(self, number: int) -> Record:
        """The record without a generation that is neither head nor active."""
        rest = {key: value for key, value in self.directories.items() if key != number}
        scorings = {key: value for key, value in self.scorings.items() if key != number}
        changed = replace(self, directories=rest, scorings=scorings)
        return replace(changed, successor=None, is_successor_complete=False) if number == self.successor else changed


class Generations:
    """The record of one collection and the directories it names. Blocking; one thread at a time."""

    def __init__(self, directory: Path) -> None:
        """Reads the record of a collection's directory; an empty one gets a record of one generation.

        A store of the layout before there were generations becomes the first.

        Raises:
            FailedPrecondition: When the record is of a newer format.
        """
        self._file, self._root = directory / RECORD_FILE, directory / _DIRECTORY
        if not self._file.exists():
            _adopt(directory, self._root)
            self._sync({"1"})
            self.write_file(self._file, Record(head=1, active=1, next_number=2, directories={1: "1"}))
        self.record = self.read(directory)

    @staticmethod
    def read(directory: Path) -> Record:
        """The record of a collection's directory, as it is now.

        Raises:
            FailedPrecondition: When it has none yet, or one of a newer format.
        """
        path = directory / RECORD_FILE
        if not path.exists():
            raise FailedPrecondition(f"{path} is not there: start the retriever once", reason="FORMAT_TOO_OLD")
        return record_from_json(json.loads(path.read_text(encoding="utf-8")), str(path))

    @staticmethod
    def path_in(directory: Path, record: Record, number: int) -> Path:
        """Where a generation lies in a collection's directory."""
        return directory / _DIRECTORY / record.directories[number]

    @staticmethod
    def is_collection(directory: Path) -> bool:
        """Whether the directory holds a collection, of this layout or the earlier one."""
        stores = (directory / STORE_FILE, directory / _DIRECTORY / "1" / STORE_FILE)
        return any(path.is_file() for path in (directory / RECORD_FILE, *stores))

    def write(self, record: Record) -> None:
        """Replaces the record, durably; what it newly names is in its place before."""
        self._sync({*record.directories.values()} - {*self.record.directories.values()})
        self.write_file(self._file, record)
        self.record = record

    @staticmethod
    def write_file(path: Path, record: Record) -> None:
        """Writes a record, durably: complete, or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record_to_json(record)), encoding="utf-8")

    def path(self, number: int) -> Path:
        """A generation's directory."""
        return self._root / self.record.directories[number]

    def make_directory(self) -> Path:
        """A new, empty directory, which belongs to nobody until the record names it."""
        path = self._root / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def delete_unnamed(self) -> None:
        """Deletes the directories that the record does not name.

        Raises:
            OSError: When one cannot be deleted.
        """
        named = set(self.record.directories.values())
        for path in self._root.iterdir():
            if path.name not in named:
                for ignores_errors in (True, True, False):  # A backup may put a file there meanwhile.
                    shutil.rmtree(path, ignore_errors=ignores_errors)
                    if not path.exists():
                        break
        sync_directory(self._root)

    def _sync(self, names: Iterable[str]) -> None:
        for name in names:
            sync_directory(self._root / name)
        sync_directory(self._root)


def _adopt(directory: Path, root: Path) -> None:
    """Moves a store of the earlier layout (the collection's own directory) to where generations are. Repeatable."""
    target = root / "1"
    target.mkdir(parents=True, exist_ok=True)
    if not (directory / STORE_FILE).exists():
        return
    with closing(sqlite3.connect(directory / STORE_FILE)) as connection:  # What lies in the log goes into the file.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sync_file(directory / STORE_FILE)
    if (directory / LEXICAL_DIRECTORY).exists():
        (directory / LEXICAL_DIRECTORY).rename(target / LEXICAL_DIRECTORY)
    (directory / STORE_FILE).rename(target / STORE_FILE)
    sync_directory(target)
    sync_directory(directory)


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as it is stored, with its format version."""
    return {"format": FORMAT, **asdict(record)}


def record_from_json(given: dict[str, Any], where: str) -> Record:
    """The inverse of `record_to_json`.

    Args:
        given: What it made.
        where: For messages.

    Raises:
        FailedPrecondition: When it is of a newer format.
    """
    schema.check_format(given.pop("format"), FORMAT, where)
    erasure = given["erasure"]
    return Record(
        **{
            **given,
            "directories": {int(number): name for number, name in given["directories"].items()},
            "scorings": {
                int(number): Scoring(one["temperature"], fusion_from_json(one["fusion"]))
                for number, one in given["scorings"].items()
            },
            "erasure": erasure and Erasure(tuple(erasure["ids"]), tuple(erasure["sources"])),
        }
    )
