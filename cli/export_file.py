"""The file of `rag export`: JSON lines, gzipped where the name ends in .gz.

First a header (what it is, the collection's settings, the encoder), then sources and passages with their vectors
(base64 of little-endian float32), last an end line with counts and a SHA-256 of every line before it.
"""

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from cli.errors import CommandFailed
from cli.render import to_plain
from rag_client import Collection, CollectionSettings, EmbeddedPassage, Fusion, Passage, Snapshot, Source, TextSpan

FORMAT, VERSION = "rag-export", 1


class ExportWriter:
    """Writes one file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.num_passages = self.num_sources = 0

    def header(self, collection: Collection, snapshot: Snapshot, *, with_vectors: bool) -> None:
        """Says what is exported."""
        encoder = collection.encoder
        self._line(
            {
                "format": FORMAT,
                "version": VERSION,
                "settings": to_plain(collection.settings),
                "encoder": {"name": encoder.name, "digest": encoder.digest, "dim": encoder.dim},
                "snapshot": to_plain(snapshot),
                "with_vectors": with_vectors,
            }
        )

    def source(self, source: Source) -> None:
        """Writes a source."""
        self._line({"source": {"name": source.name, "digest": source.digest}})
        self.num_sources += 1

    def passage(self, given: Passage | EmbeddedPassage) -> None:
        """Writes a passage."""
        passage = given.passage if isinstance(given, EmbeddedPassage) else given
        fields = {name: value for name, value in asdict(passage).items() if name not in ("content_digest", "sequence")}
        line: dict[str, Any] = {"passage": fields}
        if isinstance(given, EmbeddedPassage):
            line["vector"] = base64.b64encode(np.asarray(given.vector, "<f4").tobytes()).decode()
        self._line(line)
        self.num_passages += 1

    def end(self) -> None:
        """Ends the file: without this line it counts as cut off."""
        counts = {"num_passages": self.num_passages, "num_sources": self.num_sources}
        self._line({"end": {**counts, "sha256": self._digest.hexdigest()}})

    def _line(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._digest.update(line)
        self._file.write(line)


class ExportReader:
    """Reads one file: the header when it is opened, the rest by `items`."""

    def __init__(self, file: Iterable[bytes], name: str) -> None:
        self._lines, self._name, self._digest = iter(file), name, hashlib.sha256()
        try:
            header = self._next()
        except CommandFailed:
            header = None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise CommandFailed(f"{name} is no file of `rag export`")
        if header["version"] > VERSION:
            raise CommandFailed(f"{name} has version {header['version']}; this release reads up to {VERSION}")
        settings = header["settings"]
        fusion = settings["fusion"]
        self.settings = CollectionSettings(**{**settings, "fusion": fusion and Fusion(**fusion)})
        self.encoder_name, self.encoder_digest = str(header["encoder"]["name"]), str(header["encoder"]["digest"])
        self.digest, self.num_passages = str(header["snapshot"]["digest"]), int(header["snapshot"]["num_passages"])
        self.with_vectors = bool(header["with_vectors"])

    def items(self) -> Iterator[Source | Passage | EmbeddedPassage]:
        """What follows the header.

        Raises:
            CommandFailed: When the file is cut off or not as it was written; what came before is as it was.
        """
        while True:
            digest = self._digest.hexdigest()
            line = self._next()
            if line is None:
                raise CommandFailed(f"{self._name} is cut off")
            if "end" in line:
                if line["end"]["sha256"] != digest:
                    raise CommandFailed(f"{self._name} is damaged: its checksum is another")
                return
            yield Source(**line["source"]) if "source" in line else _passage(line)

    def _next(self) -> dict[str, Any] | None:
        try:
            line = next(self._lines, b"")
        except (OSError, EOFError) as error:
            raise CommandFailed(f"{self._name} is cut off: {error}") from error
        if not line.endswith(b"\n"):
            return None
        self._digest.update(line)
        try:
            return cast(dict[str, Any], json.loads(line))
        except ValueError as error:
            raise CommandFailed(f"{self._name} is damaged: {error}") from error


@contextmanager
def writing(path: Path) -> Iterator[ExportWriter]:
    """A writer of a new file, which appears under its name when it is complete and durable.

    Raises:
        CommandFailed: When it cannot be written; nothing is left of it.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("wb") as raw:
            with cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="wb")) if path.suffix == ".gz" else _kept(raw) as file:
                yield ExportWriter(file)
            raw.flush()
            os.fsync(raw.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[ExportReader]:
    """A reader of a file."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield ExportReader(cast(IO[bytes], file), str(path))
    except FileNotFoundError as error:
        raise CommandFailed(f"there is no file {path}") from error
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _kept(file: IO[bytes]) -> Iterator[IO[bytes]]:
    yield file


def _passage(line: dict[str, Any]) -> Passage | EmbeddedPassage:
    given = line["passage"]
    metadata = {name: tuple(each) if isinstance(each, list) else each for name, each in given["metadata"].items()}
    span = given["span"] and TextSpan(**given["span"])
    passage = Passage(**{**given, "span": span, "metadata": metadata})
    if "vector" not in line:
        return passage
    return EmbeddedPassage(passage, np.frombuffer(base64.b64decode(line["vector"]), "<f4"))
