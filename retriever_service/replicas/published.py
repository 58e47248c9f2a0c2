"""What a writer publishes: files named by their checksum, one description of a whole state, one small pointer to it.

The pointer is written last and replaced at once: it always names a state that is there whole. Whatever is read back is
checked, names included: they become paths.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from retriever_service.collection import check_collection_name
from retriever_service.generations import Record, record_from_json, record_to_json
from retriever_service.replicas.object_store import ObjectStore
from retriever_service.schema import check_format
from serving.errors import FailedPrecondition

FORMAT = 1
DAMAGED, NOT_THE_WRITER = "PUBLICATION_DAMAGED", "NOT_THE_WRITER"
POINTER, OBJECTS, STATES = "current.json", "objects/", "states/"
_DIRECTORY, _SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Seal:
    """Size and SHA-256 (hex) of a file."""

    num_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """The object that holds the file."""
        return OBJECTS + self.sha256


Files = Mapping[str, Seal]  # By path, relative to the generation's directory.


@dataclass(frozen=True, slots=True)
class PublishedCollection:
    """A collection as readers serve it.

    Attributes:
        record: Its generations; the head is frozen, and nothing is under way.
        files: Of each directory that the record names.
        sequence: The last change that the head includes.
        digest: The head's, as in provenance.
    """

    record: Record
    files: Mapping[str, Files]
    sequence: int
    digest: str

    @property
    def is_whole(self) -> bool:
        """Whether every directory's files are known."""
        return self.files.keys() >= set(self.record.directories.values())


@dataclass(frozen=True, slots=True)
class Publication:
    """One state of every collection. `published_at` is Unix time in seconds, by the writer's clock."""

    number: int
    published_at: float
    writer_address: str
    collections: Mapping[str, PublishedCollection]

    def objects(self) -> set[str]:
        """The objects that it needs."""
        files = (files for one in self.collections.values() for files in one.files.values())
        return {seal.name for each in files for seal in each.values()}

    def to_json(self) -> bytes:
        """As it is stored."""
        collections = {
            name: {**asdict(one), "record": record_to_json(one.record)} for name, one in self.collections.items()
        }
        return json.dumps({"format": FORMAT, **asdict(self), "collections": collections}).encode()


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which publication is the newest: its number, its object and the SHA-256 (hex) of that.

    `writer_id` alone may write the next one; `epoch` counts how often that changed. Releases before had neither.
    """

    number: int
    state: str
    sha256: str
    published_at: float
    writer_address: str
    writer_id: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A writer's right to write the next pointer, as long as the present one is `pointer` (None: there is none)."""

    writer_id: str
    epoch: int
    pointer: bytes | None
    is_new: bool  # The present pointer is another writer's, or nobody's.


def claim(store: ObjectStore, writer_id: str, *, takes_over: bool) -> Claim:
    """What `writer_id` may replace: its own pointer, nobody's, or with `takes_over` that of another.

    Raises:
        FailedPrecondition: When the place belongs to another writer.
    """
    content = store.read(POINTER)
    try:
        pointer = None if content is None else pointer_from_json(content)
    except FailedPrecondition as error:
        if error.reason != DAMAGED:
            raise
        pointer = None
    if pointer is None or not pointer.writer_id:
        return Claim(writer_id, 1, content, is_new=True)
    if pointer.writer_id == writer_id:
        return Claim(writer_id, pointer.epoch, content, is_new=False)
    if not takes_over:
        raise FailedPrecondition(
            f"another retriever is the writer of this place: the one at {pointer.writer_address} published there "
            f"(epoch {pointer.epoch}). Stop it and start this one once with --take-over, or publish elsewhere",
            reason=NOT_THE_WRITER,
        )
    return Claim(writer_id, pointer.epoch + 1, content, is_new=True)


def publication_from_json(content: bytes) -> Publication:
    """The inverse of `Publication.to_json`.

    Raises:
        FailedPrecondition: When it is of a newer format, or not a publication.
    """
    try:
        given = _checked_format(json.loads(content))
        return Publication(
            given["number"],
            given["published_at"],
            given["writer_address"],
            {check_collection_name(name): _collection_from(one) for name, one in given["collections"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FailedPrecondition(f"this is no publication: {error!r}", reason=DAMAGED) from error


def read_pointer(store: ObjectStore) -> Pointer | None:
    """Which publication is the newest; None while there is none.

    Raises:
        FailedPrecondition: When it is of a newer format, or damaged.
    """
    content = store.read(POINTER)
    return None if content is None else pointer_from_json(content)


def pointer_from_json(content: bytes) -> Pointer:
    """The inverse of how a pointer is stored.

    Raises:
        FailedPrecondition: When it is of a newer format, or damaged.
    """
    try:
        given = _checked_format(json.loads(content))
        del given["collections"]  # For people.
        return Pointer(**given)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FailedPrecondition(f"{POINTER} is damaged: {error!r}", reason=DAMAGED) from error


def read_publication(store: ObjectStore, pointer: Pointer) -> Publication:
    """The publication that a pointer names.

    Raises:
        FailedPrecondition: When it is not there any more, or not as it was written.
    """
    content = store.read(pointer.state)
    if content is None or hashlib.sha256(content).hexdigest() != pointer.sha256:
        state = "gone" if content is None else "damaged"
        raise FailedPrecondition(f"publication {pointer.number} is {state}", reason=DAMAGED)
    return publication_from_json(content)


def write_publication(store: ObjectStore, publication: Publication, claim: Claim) -> None:
    """Stores a publication whose files are there, then makes it the newest.

    Raises:
        FailedPrecondition: When another writer has published since the claim was made.
    """
    content = publication.to_json()
    digest = hashlib.sha256(content).hexdigest()
    name = f"{STATES}{publication.number:012d}-{digest[:16]}.json"
    store.write(name, content)
    pointer = Pointer(publication.number, name, digest, publication.published_at, publication.writer_address,
                      claim.writer_id, claim.epoch)  # fmt: skip
    summary = {
        name: {"index_generation": one.record.active, "sequence": one.sequence, "digest": one.digest}
        for name, one in publication.collections.items()
    }
    written = json.dumps({"format": FORMAT, **asdict(pointer), "collections": summary}).encode()
    if not store.replace(POINTER, written, claim.pointer):
        # Whose the place is now, the next claim says.
        raise FailedPrecondition("another writer published at the same moment", reason="PUBLISHED_MEANWHILE")


def _collection_from(given: dict[str, Any]) -> PublishedCollection:
    record = record_from_json(given["record"], "publication")
    files = {
        directory: {_checked_path(path): Seal(**seal) for path, seal in one.items()}
        for directory, one in given["files"].items()
    }
    for directory in record.directories.values():
        if not _DIRECTORY.fullmatch(directory) or directory not in files:
            raise ValueError(f"directory {directory!r}")
    for each in files.values():
        if wrong := [seal.sha256 for seal in each.values() if not _SHA256.fullmatch(seal.sha256)]:
            raise ValueError(f"checksum {wrong[0]!r}")
    return PublishedCollection(record, files, given["sequence"], given["digest"])


def _checked_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"path {path!r}")
    return path


def _checked_format(given: dict[str, Any]) -> dict[str, Any]:
    check_format(given.pop("format"), FORMAT, "the publication")
    return given
