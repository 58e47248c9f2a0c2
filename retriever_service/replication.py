"""Brings a second store, row by row and number by number, to the state of a head. Blocking.

Rows and sequence numbers stay the same, so that indexes, logs and callers' sequence tokens hold in both. The copy is
written anew and holds live content alone.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from retriever_service import schema
from retriever_service.collection import CollectionSettings
from retriever_service.generations import STORE_FILE
from retriever_service.schema import ROW_TABLES, VECTOR_TABLES
from retriever_service.store import Store
from retriever_service.stored_settings import settings_to_json
from retriever_service.stored_vectors import store_vectors
from retriever_service.transaction import CONTENT_SUM
from retriever_service.vectors import PassageVectors
from retriever_service.writing import Writer

_COPIED_META = (CONTENT_SUM, "created_at", "updated_at")
_MOVED = "row IN (SELECT row FROM moved)"


def begin(directory: Path, settings: CollectionSettings) -> None:
    """Makes an empty store for `replicate` in a directory."""
    store = Store.create(directory / STORE_FILE)
    Writer(store, {}).set_meta({"settings": settings_to_json(settings), "store_id": uuid.uuid4().hex})
    store.close()


def replicate(target: Path, head: Path, *, with_vectors: bool) -> bool:
    """Brings the target to the head's present state, in one transaction.

    Args:
        target: A store that `begin` made.
        head: The store to follow.
        with_vectors: Whether the head's vectors are copied; else `add_vectors` must have brought them.

    Returns:
        Whether it is done; False, and nothing changed, while new rows lack their vectors.
    """
    with _attached(target, head) as sql:
        sql.execute("BEGIN")  # Not IMMEDIATE: that would lock the head, too, and hold its writes back.
        try:
            is_done = _replicate(sql, with_vectors=with_vectors)
        except BaseException:
            sql.execute("ROLLBACK")
            raise
        sql.execute("COMMIT" if is_done else "ROLLBACK")
        return is_done


def lacking(target: Path, head: Path, after: int, limit: int) -> list[tuple[int, str, str]]:
    """(row, title, text) of the head's next rows after `after` that have no vector in the target, ascending."""
    sql = (
        "SELECT row, title, text FROM head.passages WHERE row > ? "
        "AND NOT EXISTS (SELECT 1 FROM main.vectors v WHERE v.row = head.passages.row) ORDER BY row LIMIT ?"
    )
    with _attached(target, head) as connection:
        return connection.execute(sql, (after, limit)).fetchall()


def add_vectors(target: Path, rows: Sequence[int], vectors: Sequence[PassageVectors]) -> None:
    """Stores vectors of rows that `replicate` will bring; durable when it returns."""
    with closing(schema.connect(target)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for row, one in zip(rows, vectors, strict=True):
            store_vectors(connection, row, one)
        connection.execute("COMMIT")


def num_vectors(target: Path) -> int:
    """Vectors that the target holds."""
    with closing(schema.connect(target)) as connection:
        return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])


def _replicate(sql: sqlite3.Connection, *, with_vectors: bool) -> bool:
    (last,) = sql.execute("SELECT coalesce(max(sequence), 0) FROM main.changes").fetchone()
    sql.execute("CREATE TEMP TABLE moved AS SELECT DISTINCT row FROM head.changes WHERE sequence > ?", (last,))
    if not with_vectors:
        there = f"SELECT 1 FROM head.passages WHERE {_MOVED} AND row NOT IN (SELECT row FROM main.vectors) LIMIT 1"
        if sql.execute(there).fetchone() is not None:
            return False
    for table in ("passages", "fields", *(VECTOR_TABLES if with_vectors else ())):
        sql.execute(f"DELETE FROM main.{table} WHERE {_MOVED}")
        sql.execute(f"INSERT INTO main.{table} SELECT * FROM head.{table} WHERE {_MOVED}")
    for table in VECTOR_TABLES:
        sql.execute(f"DELETE FROM main.{table} WHERE {_MOVED} AND row NOT IN (SELECT row FROM head.passages)")
    for table in ("sources", "duplicates"):  # Small, and not in the log.
        sql.execute(f"DELETE FROM main.{table}")
        sql.execute(f"INSERT INTO main.{table} SELECT * FROM head.{table}")
    sql.execute("INSERT INTO main.changes SELECT * FROM head.changes WHERE sequence > ?", (last,))
    sql.execute("DELETE FROM main.sqlite_sequence")  # So that numbers are not used again here either.
    sql.execute("INSERT INTO main.sqlite_sequence SELECT * FROM head.sqlite_sequence")
    marks = ", ".join("?" * len(_COPIED_META))
    sql.execute(f"INSERT OR REPLACE INTO main.meta SELECT * FROM head.meta WHERE key IN ({marks})", _COPIED_META)
    return True


@contextmanager
def _attached(target: Path, head: Path) -> Iterator[sqlite3.Connection]:
    with closing(schema.connect(target)) as connection:
        connection.execute("ATTACH ? AS head", (str(head),))
        yield connection


def erase(target: Path, head: Path, rows: Iterable[int], sources: Iterable[str]) -> None:
    """Takes rows and sources, and vectors of what the head has no more, out of a store that goes on following it."""
    with _attached(target, head) as connection:
        connection.execute("BEGIN")
        for table in ROW_TABLES:
            connection.executemany(f"DELETE FROM main.{table} WHERE row = ?", [(row,) for row in rows])
        for table in VECTOR_TABLES:
            connection.execute(f"DELETE FROM main.{table} WHERE row NOT IN (SELECT row FROM head.passages)")
        for table, column in (("sources", "name"), ("duplicates", "source")):
            connection.executemany(f"DELETE FROM main.{table} WHERE {column} = ?", [(name,) for name in sources])
        connection.execute("COMMIT")
