"""Vectors as the collection file keeps them: little-endian, float32 of passages, float16 of their sentences."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

from retriever_service.collection import Rows, Vectors
from retriever_service.vectors import PassageVectors, SentenceVectors


def store_vectors(connection: sqlite3.Connection, row: int, vectors: PassageVectors) -> None:
    """Writes a row's vectors, inside a transaction."""
    connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (row, vector_blob(vectors.whole)))
    if vectors.sentences is not None:
        blob = vectors.sentences.astype("<f2").tobytes()
        connection.execute("INSERT OR REPLACE INTO sentences VALUES (?, ?)", (row, blob))


def vector_blob(vector: Vectors) -> bytes:
    """A vector (D,) as it is stored."""
    return vector.astype("<f4", copy=False).tobytes()


def vector_from(blob: bytes) -> Vectors:
    """The inverse of `vector_blob`."""
    return np.frombuffer(blob, "<f4").astype(np.float32, copy=False)


def stack(found: Sequence[tuple[int, bytes]]) -> tuple[Rows, Vectors]:
    """Rows (N,) and their vectors (N, D)."""
    rows = np.fromiter((row for row, _ in found), np.int64, len(found))
    if not len(found):
        return rows, np.empty((0, 0), np.float32)
    return rows, np.frombuffer(b"".join(blob for _, blob in found), "<f4").reshape(len(found), -1)


def stack_sentences(found: Sequence[tuple[int, bytes]], dim: int) -> SentenceVectors:
    """The sentences of several rows."""
    counts = [len(blob) // (2 * dim) for _, blob in found]
    rows = np.repeat(np.fromiter((row for row, _ in found), np.int64, len(found)), counts)
    vectors = np.frombuffer(b"".join(blob for _, blob in found), "<f2").reshape(-1, dim)
    return SentenceVectors(rows, vectors.astype(np.float32))


def passage_vectors_from(whole: bytes, sentences: bytes | None) -> PassageVectors:
    """One passage's."""
    vector = vector_from(whole)
    if sentences is None:
        return PassageVectors(vector)
    return PassageVectors(vector, np.frombuffer(sentences, "<f2").reshape(-1, len(vector)).astype(np.float32))
