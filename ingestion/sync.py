"""What a collection needs so that it holds what the files hold. Pure: names and digests in, a plan out."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ingestion.files import FoundFile, row_suffix


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What to do with each file, in the files' order.

    Attributes:
        vanished: Names of sources in the collection that no file accounts for; deleted only on request.
    """

    added: tuple[FoundFile, ...]
    changed: tuple[FoundFile, ...]
    unchanged: tuple[FoundFile, ...]
    vanished: tuple[str, ...]


def plan_sync(existing: Mapping[str, str], found: Iterable[FoundFile]) -> SyncPlan:
    """Compares the digests of a collection's sources (by name) with those of the files found.

    A collection empties the digest of a source of which it lost content (a duplicate kept under another source that
    went): such a file is done again. When no file has that name, rows of a file may have named it, so all row files
    are done again, which records its digest anew.
    """
    files = list(found)
    names = {file.source for file in files}
    parts = {part_digest(name, digest) for name, digest in existing.items() if name in names}
    if any(row_suffix(name) for name in names):
        parts.add("")
    orphans = any(not digest and name not in names for name, digest in existing.items())

    def is_current(file: FoundFile) -> bool:
        return existing.get(file.source) == file.digest and not (orphans and row_suffix(file.source))

    return SyncPlan(
        added=tuple(file for file in files if file.source not in existing),
        changed=tuple(file for file in files if file.source in existing and not is_current(file)),
        unchanged=tuple(file for file in files if is_current(file)),
        vanished=tuple(sorted(name for name, digest in existing.items() if name not in names and digest not in parts)),
    )


def part_digest(source: str, digest: str) -> str:
    """The digest recorded for a source that rows of a file name themselves: it tells which file, in which state."""
    return hashlib.sha256(f"{source}\0{digest}".encode()).hexdigest()


def stale_parts(existing: Mapping[str, str], file: FoundFile, named: Iterable[str]) -> list[str]:
    """Sources that rows of the file named when it was last ingested, and no row names now."""
    before = existing.get(file.source)
    if before is None:
        return []
    part, kept = part_digest(file.source, before), set(named)
    return sorted(name for name, digest in existing.items() if digest == part and name not in kept)
