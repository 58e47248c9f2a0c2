"""The collection file: an SQLite database, its tables and its version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from serving.durable import sync_file
from serving.errors import FailedPrecondition

SCHEMA_VERSION = 2

# `passages.row` is the key of the derived indexes: a row's text and vector never change, a passage whose content
# changes gets a new row. AUTOINCREMENT: numbers are never used twice.
_SENTENCES = "CREATE TABLE sentences (row INTEGER PRIMARY KEY, vectors BLOB NOT NULL);"  # float16, little-endian
_TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE passages (
  row INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  title TEXT NOT NULL,
  text TEXT NOT NULL,
  source TEXT NOT NULL,
  start_char INTEGER, end_char INTEGER, page INTEGER,
  metadata TEXT NOT NULL,             -- JSON
  content_digest BLOB NOT NULL UNIQUE,
  sequence INTEGER NOT NULL           -- of the last write
);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);   -- float32, little-endian
{_SENTENCES}
CREATE TABLE fields (                 -- the filterable part of the metadata, one entry per value
  name TEXT NOT NULL, value NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (name, value, row)
) WITHOUT ROWID;
CREATE INDEX fields_by_row ON fields (row, name);
CREATE TABLE sources (name TEXT PRIMARY KEY, digest TEXT NOT NULL, updated_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE duplicates (             -- content of a source that is kept under another source's passage
  content_digest BLOB NOT NULL, source TEXT NOT NULL, PRIMARY KEY (content_digest, source)
) WITHOUT ROWID;
CREATE TABLE changes (                -- the change log; holds no content, so that erasing a passage erases it
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  row INTEGER NOT NULL,
  operation TEXT NOT NULL             -- added | removed | patched
);
"""
VECTOR_TABLES = ("vectors", "sentences")
ROW_TABLES = ("passages", "fields", *VECTOR_TABLES)  # What a row is made of.

# What a file can do without, slowly: of another release's file, nothing but speed depends on it.
_INDEX = "CREATE INDEX IF NOT EXISTS passages_in_order ON passages (source, start_char, id);"

# From version n to n + 1. A release that changes the tables adds its step here.
_MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], object]] = {
    1: lambda connection: connection.execute(_SENTENCES),
}


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the durability that acknowledging a write needs: WAL, fsync on every commit."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")  # A log that one large transaction made goes back to it.
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA mmap_size = 1073741824")
    return connection


def connect_frozen(path: Path) -> sqlite3.Connection:
    """A connection to a file that nobody changes: without locks, and no file appears beside it.

    Raises:
        FailedPrecondition: When the file is of another format than this program's.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    if (version := version_of(connection)) != SCHEMA_VERSION:
        connection.close()
        check_format(version, SCHEMA_VERSION, path)
        raise FailedPrecondition(
            f"{path} has format version {version}: this release brings it to {SCHEMA_VERSION} where it may write to it",
            reason="FORMAT_TOO_OLD",
        )
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA mmap_size = 1073741824")
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """The file's format version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty database."""
    connection.executescript(f"BEGIN; {_TABLES} {_INDEX} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Brings an older file to the present version, each step in one transaction.

    Raises:
        FailedPrecondition: When the file is newer than this program.
    """
    version = version_of(connection)
    check_format(version, SCHEMA_VERSION, path)
    for step in range(version, SCHEMA_VERSION):
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # Commits, or rolls back when the step fails.
            _MIGRATIONS[step](connection)
            connection.execute(f"PRAGMA user_version = {step + 1}")
    connection.execute(_INDEX)


def copy(source: Path, target: Path) -> None:
    """Writes one consistent state of a store into a new file, durably, while others write on.

    The copy holds live content alone: nothing deleted is left in its free space.
    """
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    sync_file(target)


def check_format(version: int, newest: int, where: Path | str) -> None:
    """Checks that this program can read something.

    Args:
        version: Its format.
        newest: The newest format of its kind that this program knows.
        where: For the message.

    Raises:
        FailedPrecondition: When its format is newer.
    """
    if version > newest:
        raise FailedPrecondition(
            f"{where} has format version {version}, this program reads up to {newest}: use a newer release",
            reason="FORMAT_TOO_NEW",
        )
