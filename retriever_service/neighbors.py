"""The passages beside a passage in its source: by where they start, or by id among those that do not say where."""

from __future__ import annotations

import sqlite3

from retriever_service.collection import Passage

# A passage with the same start as another has its place by id, too. The index passages_in_order serves all four.
_PLACED = "p.source = :source AND (p.start_char, p.id) {comparison} (:start, :id) ORDER BY p.start_char {order}, p.id"
_UNPLACED = "p.source = :source AND p.start_char IS NULL AND p.id {comparison} :id ORDER BY p.id"


def rows_beside(connection: sqlite3.Connection, passage: Passage, count: int) -> list[int]:
    """Rows of the `count` passages before and after one of the same source, in order; its own left out.

    A passage without a source has none beside it.
    """
    if not passage.source:
        return []
    where = _UNPLACED if passage.span is None else _PLACED
    given = {
        "source": passage.source,
        "id": passage.id,
        "start": passage.span and passage.span.start_char,
        "count": count,
    }

    def rows(comparison: str, order: str) -> list[int]:
        condition = where.format(comparison=comparison, order=order)
        sql = f"SELECT p.row FROM passages p WHERE {condition} {order} LIMIT :count"
        return [row for (row,) in connection.execute(sql, given)]

    return rows("<", "DESC")[::-1] + rows(">", "ASC")
