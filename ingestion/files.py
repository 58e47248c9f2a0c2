"""Finds the files to ingest, in an order that does not depend on the machine, and says what it leaves out."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingestion.errors import UnreadableFile

DOCUMENT_SUFFIXES = (".txt", ".md", ".markdown", ".html", ".htm", ".docx", ".pdf")
ROW_SUFFIXES = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".tsv.gz")
MAX_SOURCE_BYTES = 2048


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to ingest.

    Attributes:
        source: Its name in the collection: the path relative to the root it was found under, with forward slashes.
        digest: SHA-256 (hex) of its bytes.
    """

    path: Path
    source: str
    digest: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that was left out, and why."""

    path: Path
    reason: str


def find_files(roots: Iterable[Path]) -> tuple[list[FoundFile], list[SkippedFile]]:
    """Lists the files under directories, and the files given themselves, with their digests.

    Hidden files and directories below a root are passed over in silence; links to directories are not followed.
    Files of other types, unreadable ones and those whose name has no UTF-8 form are returned as skipped.

    Raises:
        UnreadableFile: A root does not exist, or two files would have the same source name.
    """
    found: dict[str, FoundFile] = {}
    skipped: list[SkippedFile] = []
    seen: set[Path] = set()
    for root in roots:
        if not root.exists():
            raise UnreadableFile(f"{root}: no such file or directory")
        for path in _walk(root):
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            base = root if root.is_dir() else root.parent
            file = _look_at(path, path.relative_to(base).as_posix())
            if isinstance(file, SkippedFile):
                skipped.append(file)
            elif clash := found.get(file.source):
                raise UnreadableFile(
                    f"{clash.path} and {path} would both be the source {file.source!r}: "
                    "ingest a directory that holds both, or use two collections"
                )
            else:
                found[file.source] = file
    return list(found.values()), skipped


def row_suffix(name: str) -> str | None:
    """The suffix that makes a file one of ready passages, as ".csv.gz"; None for other files."""
    return next((suffix for suffix in ROW_SUFFIXES if name.lower().endswith(suffix)), None)


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, directories, names in os.walk(root):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _look_at(path: Path, source: str) -> FoundFile | SkippedFile:
    if path.suffix.lower() not in DOCUMENT_SUFFIXES and row_suffix(path.name) is None:
        return SkippedFile(path, f"files of type {path.suffix or 'without suffix'!r} are not supported")
    try:
        if len(source.encode()) > MAX_SOURCE_BYTES:
            return SkippedFile(path, f"its path is longer than {MAX_SOURCE_BYTES} bytes")
    except UnicodeEncodeError:
        return SkippedFile(Path(os.fsencode(path).decode(errors="replace")), "its name is not UTF-8")
    if not path.is_file():
        return SkippedFile(path, "not a regular file")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return SkippedFile(path, f"cannot be read: {error.strerror}")
    return FoundFile(path, source, digest, path.stat().st_size)
