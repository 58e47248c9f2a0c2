"""A store's stand-in for the tests of dense indexes: vectors, a change log, and reading as of one moment."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from retriever_service.collection import COSINE_TEMPERATURE, CollectionSettings, EncoderIdentity, Metric
from retriever_service.fusion import Fusion

DIM = 16
BATCH = 64


def settings(dim=DIM, index_factory=""):
    encoder = EncoderIdentity("fake", "d1", dim, True)
    made = CollectionSettings("c", Metric.COSINE, encoder, True, {}, COSINE_TEMPERATURE, Fusion(), "english")
    return replace(made, index_factory=index_factory)


@functools.cache
def vector_of(row, dim=DIM):
    """A row's vector; they lie in clusters, as embeddings do."""
    centre = np.random.default_rng(row % 10).normal(size=dim)
    vector = centre + 0.7 * np.random.default_rng(1000 + row).normal(size=dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass(frozen=True)
class Change:
    sequence: int
    row: int
    operation: str


@dataclass(frozen=True)
class Moment:
    """A source as of one change."""

    stored: dict
    log: tuple
    store_id: str

    def meta(self, key, default=""):
        return self.store_id if key == "store_id" else default

    def last_sequence(self):
        return len(self.log)

    def num_passages(self):
        return len(self.stored)

    def changes(self, after, limit):
        return self.log[after : after + limit]

    def vectors(self, rows):
        found = sorted({int(row) for row in rows} & self.stored.keys())
        return np.array(found, np.int64), np.array([self.stored[row] for row in found], np.float32).reshape(-1, DIM)

    def scan_vectors(self, after=0, up_to=None) -> Iterator:
        rows = sorted(row for row in self.stored if row > after and (up_to is None or row <= up_to))
        for start in range(0, len(rows), BATCH):
            yield self.vectors(rows[start : start + BATCH])

    def row_at(self, after, offset):
        rows = sorted(row for row in self.stored if row > after)
        return rows[offset] if offset < len(rows) else None


class FakeStore:
    """Rows come in ascending order and are never used twice, as in the store."""

    def __init__(self):
        self.now, self._last_row = Moment({}, (), "s1"), 0
        self.before_reading = lambda: None  # Called when a merge begins to read.

    @contextmanager
    def open_source(self):
        moment = self.now
        self.before_reading()
        yield moment

    def add(self, number):
        rows = list(range(self._last_row + 1, self._last_row + 1 + number))
        self._last_row += number
        stored = {**self.now.stored, **{row: vector_of(row) for row in rows}}
        self._log(stored, rows, "added")
        return np.array(rows, np.int64)

    def remove(self, rows):
        stored = {row: vector for row, vector in self.now.stored.items() if row not in set(rows)}
        self._log(stored, rows, "removed")

    def _log(self, stored, rows, operation):
        start = len(self.now.log) + 1
        log = tuple(Change(start + i, row, operation) for i, row in enumerate(rows))
        self.now = replace(self.now, stored=stored, log=self.now.log + log)


def brute_force(stored, queries, count, among=None):
    """(B, count) best rows, -1 where there are fewer."""
    rows = np.array(sorted(stored if among is None else stored.keys() & set(among)), np.int64)
    best = np.full((len(queries), count), -1, np.int64)
    if len(rows):
        scores = queries.astype(np.float64) @ np.array([stored[row] for row in rows], np.float64).T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        best[:, : order.shape[1]] = rows[order]
    return best
