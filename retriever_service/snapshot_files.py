"""A snapshot on disk: a directory with a store that nobody changes, a lexical index, and a manifest vouching for it.

It is written under no name of the record's, made durable, and named last: it is there whole, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from retriever_service import schema
from retriever_service.generation import fill_lexical
from retriever_service.generations import LEXICAL_DIRECTORY, STORE_FILE
from retriever_service.lexical_index import LexicalIndex
from retriever_service.store import Store
from retriever_service.stored_settings import settings_from_json
from retriever_service.transaction import index_digest
from retriever_service.writing import Writer
from serving.durable import replacing
from serving.errors import FailedPrecondition

FORMAT = 1
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot holds.

    Attributes:
        index_generation: Its number.
        label: For people.
        sequence: The last change it includes.
        num_passages: Passages.
        digest: As in provenance: over passages and encoder.
        encoder_digest: Of the encoder that made its vectors.
        created_at: Unix time in seconds.
        store_bytes: Size of the store file.
        store_sha256: Of the store file (hex).
        format: Of this file.
    """

    index_generation: int
    label: str
    sequence: int
    num_passages: int
    digest: str
    encoder_digest: str
    created_at: float
    store_bytes: int
    store_sha256: str
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Erased:
    """What a rewritten snapshot leaves out."""

    rows: Sequence[int]
    sources: Sequence[str]


def write_snapshot(
    source: Path, directory: Path, number: int, label: str, *, created_at: float = 0.0, erased: Erased | None = None
) -> Manifest:
    """Freezes one state of a store in an empty directory, durably, while others may write to the store.

    Args:
        source: The store; one of an older format is brought to the present one on the way.
        directory: Where to.
        number: The snapshot's index generation.
        label: For people.
        created_at: Unix time; default now.
        erased: Left out. No byte of it gets into the directory's files.
    """
    path, working = directory / STORE_FILE, directory / "working.sqlite"
    if erased is None and not is_outdated(source):
        schema.copy(source, path)
    else:
        schema.copy(source, working)
        store = Store(working)
        if erased is not None:
            Writer(store, {}).erase(erased.rows, erased.sources)
        store.close()
        schema.copy(working, path)
        for leftover in directory.glob(f"{working.name}*"):
            leftover.unlink()
    return _complete(directory, number, label, created_at or time.time())


def is_outdated(store: Path) -> bool:
    """Whether a store file is of an older format than this program writes."""
    with closing(sqlite3.connect(store)) as connection:
        return schema.version_of(connection) < schema.SCHEMA_VERSION


def _complete(directory: Path, number: int, label: str, created_at: float) -> Manifest:
    """Gives a copied store its lexical index and its manifest."""
    path = directory / STORE_FILE
    store = Store(path, is_frozen=True)
    with store.scanning() as reader:
        settings = settings_from_json(reader.meta("settings"))
        lexical = LexicalIndex(directory / LEXICAL_DIRECTORY, settings.language, reader.meta("store_id"))
        fill_lexical(lexical, reader)
        manifest = Manifest(
            index_generation=number,
            label=label,
            sequence=reader.last_sequence(),
            num_passages=reader.num_passages(),
            digest=index_digest(reader, settings.encoder.digest),
            encoder_digest=settings.encoder.digest,
            created_at=created_at,
            store_bytes=path.stat().st_size,
            store_sha256=sha256_of(path),
        )
    lexical.close()
    store.close()
    _write_manifest(directory, manifest)
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """A snapshot's manifest.

    Raises:
        FailedPrecondition: When there is none, or it is of a newer format.
    """
    try:
        given = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{directory} is no snapshot: {error}", reason="SNAPSHOT_DAMAGED") from error
    schema.check_format(given["format"], FORMAT, directory)
    return Manifest(**given)


def check_files(directory: Path, *, by_content: bool = False) -> Manifest:
    """The manifest, when the files are what it says: by size, or by checksum as well.

    Raises:
        FailedPrecondition: When they are not.
    """
    manifest, path = read_manifest(directory), directory / STORE_FILE
    size = path.stat().st_size if path.exists() else -1
    if size != manifest.store_bytes or (by_content and sha256_of(path) != manifest.store_sha256):
        raise FailedPrecondition(
            f"snapshot {directory} is damaged: {path} is not as written", reason="SNAPSHOT_DAMAGED"
        )
    return manifest


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    with replacing(directory / MANIFEST_FILE) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
