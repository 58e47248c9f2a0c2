"""Segments on disk: derived files, each durable before the manifest that names it and vouches for it.

The manifest is replaced as a whole and says up to which change the segments hold everything. Whatever is damaged,
missing, or of another store, format or encoder is built anew from the store.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retriever_service.dense.factory import Built
from retriever_service.dense.library import load_faiss
from retriever_service.dense.segment import Segment, stored_vectors
from serving.durable import replacing

FORMAT = 1
_MANIFEST = "manifest.json"
_INDEX, _ROWS = ".faiss", ".rows.npy"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest says of one segment; `removed` are its dead rows, `files` size and SHA-256 (hex) by suffix."""

    name: str
    after: int
    up_to: int
    num_stored: int
    factory: str
    parameters: str
    recall: float
    files: dict[str, tuple[int, str]]
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The segments, by ascending rows.

    Attributes:
        origin: Of which store and encoder.
        sequence: They hold every change up to this one.
        entries: One for each segment.
        format: Of this file and those it names.
    """

    origin: str
    sequence: int
    entries: tuple[Entry, ...]
    format: int = FORMAT


class SegmentFiles:
    """The files of one index. One thread at a time."""

    def __init__(self, directory: Path, dim: int, place: Callable[[Any], Any] | None = None) -> None:
        """Prepares.

        Args:
            directory: Made when something is written.
            dim: Of the vectors.
            place: Brings an index to where it is searched; default: where it is.
        """
        self._directory, self._dim, self._place = directory, dim, place
        self._entries: dict[str, Entry] = {}

    @property
    def num_bytes(self) -> int:
        """Size of the files."""
        return sum(size for entry in self._entries.values() for size, _ in entry.files.values())

    def read_manifest(self, origin: str) -> Manifest | None:
        """The manifest; None when there is none for this origin that can be read."""
        try:
            given = json.loads((self._directory / _MANIFEST).read_text(encoding="utf-8"))
            if given["format"] != FORMAT or given["origin"] != origin:
                return None
            entries = tuple(
                Entry(**{**one, "files": {key: tuple(value) for key, value in one["files"].items()}})
                for one in given.pop("entries")
            )
            return Manifest(**given, entries=entries)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_manifest(self, origin: str, sequence: int, segments: Sequence[Segment]) -> None:
        """Makes these segments the index, durably, and deletes the files of others."""
        entries = []
        for segment in segments:
            removed = tuple(segment.rows[~segment.is_live].tolist())
            entries.append(replace(self._entries[segment.name], removed=removed))
        self._directory.mkdir(parents=True, exist_ok=True)
        with replacing(self._directory / _MANIFEST) as path, path.open("w", encoding="utf-8") as file:
            json.dump(asdict(Manifest(origin, sequence, tuple(entries))), file)
        self._entries = {entry.name: entry for entry in entries}
        self.delete_others()

    def delete_others(self) -> None:
        """Deletes the files that belong to no segment; who has one mapped reads on."""
        if not self._directory.exists():
            return
        named = {name + suffix for name in self._entries for suffix in (_INDEX, _ROWS)} | {_MANIFEST}
        for path in self._directory.iterdir():
            if path.name not in named:
                path.unlink()

    def write(self, built: Built, after: int, up_to: int) -> Segment:
        """Writes an index durably and opens it from its file."""
        self._directory.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        with replacing(self._directory / f"{name}{_INDEX}") as path:
            load_faiss().write_index(built.index, str(path))
        with replacing(self._directory / f"{name}{_ROWS}") as path, path.open("wb") as file:
            np.save(file, built.rows)
        files = {suffix: _seal(self._directory / f"{name}{suffix}") for suffix in (_INDEX, _ROWS)}
        entry = Entry(name, after, up_to, len(built.rows), built.factory, built.parameters, built.recall, files)
        return self._open(entry)

    def open(self, entry: Entry) -> Segment | None:
        """Opens a segment; None when its files are not as they were written."""
        try:
            if all(_seal(self._directory / f"{entry.name}{suffix}") == seal for suffix, seal in entry.files.items()):
                return self._open(entry).without(entry.removed)
        except OSError:
            pass
        return None

    def _open(self, entry: Entry) -> Segment:
        faiss = load_faiss()
        path = self._directory / entry.name
        index = faiss.read_index(f"{path}{_INDEX}", faiss.IO_FLAG_MMAP_IFC)
        if entry.parameters:
            faiss.ParameterSpace().set_index_parameters(index, entry.parameters)
        rows = np.load(f"{path}{_ROWS}")  # In memory: a search reads a few here and there, each from another page.
        self._entries[entry.name] = entry
        return Segment(
            entry.name,
            entry.after,
            entry.up_to,
            index,
            index if self._place is None else self._place(index),
            rows,
            np.ones(len(rows), bool),
            len(rows),
            entry.factory,
            entry.parameters,
            entry.recall,
            stored_vectors(index, self._dim),
        )


def _seal(path: Path) -> tuple[int, str]:
    """Size and SHA-256 (hex) of a file: about 2 GB/s, and its pages are in memory afterwards."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
