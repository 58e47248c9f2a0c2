"""Rows of .jsonl, .csv and .tsv files (plain or .gz) as ready passages: they are never cut unless asked.

Columns: `text` (required), `id`, `title`, `source`, `metadata` (a JSON object). Other columns are left out unless
they are declared as metadata columns.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ingestion.errors import UnreadableFile
from ingestion.files import row_suffix
from ingestion.passages import MetadataValue, Passage, passage_id

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MAX_CELL_CHARS = 1 << 20


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"not a truth value: {text!r}")
    return text.lower() in ("true", "1")


_PARSERS: Mapping[str, Callable[[str], MetadataValue]] = {
    "string": str,
    "int": int,
    "double": float,
    "bool": _parse_bool,
}


@dataclass(frozen=True, slots=True)
class MetadataColumn:
    """A column that becomes a metadata field; `type` is how the cells of a CSV file are read."""

    name: str
    type: str = "string"

    @classmethod
    def parse(cls, declaration: str) -> "MetadataColumn":
        """Reads "name" or "name:type", with type one of string, int, double, bool.

        Raises:
            ValueError: No name, or another type.
        """
        name, _, type_ = declaration.partition(":")
        if not name or (type_ or "string") not in _PARSERS:
            raise ValueError(f"metadata column {declaration!r}: expected NAME or NAME:TYPE, TYPE {', '.join(_PARSERS)}")
        return cls(name, type_ or "string")


def read_rows(path: Path, source: str, columns: tuple[MetadataColumn, ...] = ()) -> Iterator[Passage]:
    """Streams the rows of a file as passages. A row without `id` gets "source#row", counted from 1.

    Raises:
        UnreadableFile: Names the row (or line, or byte) and what is wrong with it.
    """
    suffix = row_suffix(path.name) or ""
    ids: set[str] = set()
    for number, row in _numbered_rows(path, suffix.removesuffix(".gz")):
        try:
            passage = _passage(row, source, number, columns)
            if passage.id in ids:
                raise ValueError(f"the id {passage.id!r} was there before")
        except (ValueError, TypeError) as error:
            raise UnreadableFile(f"row {number}: {error}") from error
        ids.add(passage.id)
        yield passage
    if not ids:
        raise UnreadableFile("holds no rows")


def _numbered_rows(path: Path, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open("rb") as file:
        stream = gzip.open(file) if path.name.lower().endswith(".gz") else file  # noqa: SIM115 - closed with `file`.
        try:
            if kind == ".jsonl":
                yield from _json_rows(stream)
            else:
                yield from _csv_rows(stream, _DELIMITERS[kind])
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableFile(f"damaged: {error}") from error


def _json_rows(stream: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = offset = 0
    for line in stream:
        text = _decode(line, offset)
        offset += len(line)
        if not text.strip():
            continue
        number += 1
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnreadableFile(f"row {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UnreadableFile(f"row {number}: not a JSON object")
        yield number, row


def _csv_rows(stream: BinaryIO | gzip.GzipFile, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(_MAX_CELL_CHARS)

    def lines() -> Iterator[str]:
        offset = 0
        for line in stream:
            yield _decode(line, offset)
            offset += len(line)

    reader = csv.DictReader(lines(), delimiter=delimiter, strict=True)
    try:
        if reader.fieldnames is None or "text" not in reader.fieldnames:
            raise UnreadableFile(f"its first line names no column `text`: {', '.join(reader.fieldnames or [])}")
        for number, row in enumerate(reader, start=1):
            if None in row:
                raise UnreadableFile(f"row {number}: more cells than the first line names")
            yield number, {name: cell for name, cell in row.items() if cell}
    except csv.Error as error:
        raise UnreadableFile(f"line {reader.line_num}: {error}") from error


def _decode(line: bytes, offset: int) -> str:
    try:
        return line.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"not UTF-8: byte 0x{line[error.start]:02x} at offset {offset + error.start}") from error


def _passage(row: Mapping[str, Any], source: str, number: int, columns: tuple[MetadataColumn, ...]) -> Passage:
    text, own_id = _string(row, "text"), row.get("id")
    if not text.strip():
        raise ValueError("`text` is missing or blank")
    if isinstance(own_id, bool | float | list | dict):
        raise ValueError(f"`id` is not a string: {own_id!r}")
    return Passage(
        id=passage_id(source, number) if own_id in (None, "") else str(own_id),
        text=text,
        title=_string(row, "title"),
        source=_string(row, "source") or source,
        metadata=_metadata(row, columns),
    )


def _string(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{name}` is not a string: {value!r}")
    if value and not value.isascii():
        value.encode()  # JSON may spell half of a surrogate pair; UnicodeEncodeError is a ValueError.
    return value or ""


def _metadata(row: Mapping[str, Any], columns: tuple[MetadataColumn, ...]) -> dict[str, MetadataValue]:
    given = row.get("metadata")
    if isinstance(given, str):
        given = json.loads(given)
    if given is not None and not isinstance(given, dict):
        raise ValueError("`metadata` is not a JSON object")
    fields = dict(given or {})
    for column in columns:
        cell = row.get(column.name)
        parse = _PARSERS[column.type]
        fields[column.name] = parse(cell) if isinstance(cell, str) else cell
    return {name: _value(name, value) for name, value in fields.items() if value is not None}


def _value(name: str, value: Any) -> MetadataValue:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if not isinstance(value, str | int | float | bool):
        raise ValueError(f"metadata field {name!r} is neither text, number, truth value nor a list of texts")
    return value
