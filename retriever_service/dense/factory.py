"""Which FAISS index a segment gets, how it is built in bounded memory, and how well it finds what exact search finds.

Searched are `CANDIDATES` at least, of which the best ten are judged: that is what a retrieval asks for by default.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from retriever_service.collection import Rows, Vectors
from retriever_service.dense.library import load_faiss
from retriever_service.dense_index import Hits, empty_hits, merge_hits
from serving.errors import InvalidRequest

EXACT = "Flat"
CANDIDATES = 50
MAX_EXACT = 200_000  # Vectors of a collection; beyond, one query takes over 10 ms of a core at 384 dimensions.
_MIN_QUANTISED = 20_000  # Smaller segments stay exact: it takes a millisecond.
_MIN_IVF = 1_000_000
_QUANTISED = "RaBitQfs,Refine(SQfp16)"
_NUM_QUERIES, _TOP = 200, 10
_MIN_SAMPLE, _POINTS_PER_LIST, _MAX_SAMPLE = 50_000, 40, 250_000

Scan = Callable[[], Iterator[tuple[Rows, Vectors]]]


@dataclass(frozen=True, slots=True)
class Built:
    """A FAISS index of the vectors of `rows`, by position; `parameters` are those it is searched with."""

    index: Any
    rows: Rows  # (N,), ascending
    factory: str
    parameters: str
    recall: float


def factory_for(num_vectors: int, size: int) -> str:
    """The FAISS factory string of a segment of `size` in a collection of `num_vectors`.

    Measured at 384 dimensions, one core: RaBitQ with fp16 rescoring takes 1 ms per 200k vectors at recall 0.99, exact
    search 10 ms; lists pay from a million on, where building them takes minutes instead of seconds.
    """
    if num_vectors <= MAX_EXACT or size < _MIN_QUANTISED:
        return EXACT
    return _QUANTISED if size <= _MIN_IVF else f"IVF{round(4 * size**0.5)},{_QUANTISED}"


def is_scan(factory: str) -> bool:
    """Whether a search compares every code of the index with the query: twice the vectors take twice as long."""
    return factory == _QUANTISED


def num_scans(factory: str) -> int:
    """How often `build` reads the vectors."""
    return 1 if factory == EXACT else 2


def check_factory(factory: str, dim: int) -> str:
    """The factory string itself, when FAISS makes an index of it that ranks (D,) vectors by inner product.

    Raises:
        InvalidRequest: When it does not.
    """
    field = "settings.index_factory"
    try:
        index = _make(factory, dim)
    except Exception as error:
        reason = str(error).splitlines()[0].rpartition("Error: ")[2]
        raise InvalidRequest(
            f"index_factory {factory!r} is none of FAISS's for {dim} dimensions and inner product: {reason}",
            field=field,
        ) from error
    if index.metric_type != load_faiss().METRIC_INNER_PRODUCT:
        raise InvalidRequest(f"index_factory {factory!r} does not rank by inner product", field=field)
    return factory


def build(scan: Scan, dim: int, factory: str, num_expected: int, target_recall: float) -> Built | None:
    """An index of everything that `scan` gives, each time it is called; None when that is nothing.

    Memory held besides the index: a batch, and a sample to train on of at most 250,000 vectors. A factory that cannot
    be trained on so few vectors gives an exact index.
    """
    faiss = load_faiss()
    if factory == EXACT:
        return _fill(_make(EXACT, dim), scan, None, EXACT, num_expected)
    index = _make(factory, dim)
    sample_rows, sample = _sample(scan, dim, num_expected, min(num_expected, _sample_size(factory)))
    if not len(sample):
        return None
    try:
        if not index.is_trained:
            index.train(sample)
    except RuntimeError:  # Fewer vectors than lists or codes.
        return _fill(_make(EXACT, dim), scan, None, EXACT, num_expected)
    chosen = np.linspace(0, len(sample) - 1, min(_NUM_QUERIES, len(sample))).astype(int)
    truth = _Truth(faiss, sample_rows[chosen], sample[chosen].copy())
    del sample
    built = _fill(index, scan, truth, factory, num_expected)
    return built and _calibrated(built, truth, target_recall)


def build_from_all(
    scan: Scan, make: Callable[[Vectors], Any], factory: str, place: Callable[[Any], Any] | None
) -> Built | None:
    """An index that is made of all its vectors at once, which are in memory meanwhile; None when there are none.

    Args:
        scan: Gives the vectors.
        make: Makes the index.
        factory: What it is called.
        place: Brings it to where it is searched, and judged.
    """
    parts = list(scan())
    if not parts:
        return None
    rows, vectors = (np.concatenate(one) for one in zip(*parts, strict=True))
    chosen = np.linspace(0, len(rows) - 1, min(_NUM_QUERIES, len(rows))).astype(int)
    truth = _Truth(load_faiss(), rows[chosen], vectors[chosen])
    truth.see(rows, vectors)
    index = make(vectors)
    searched = index if place is None else place(index)
    positions = searched.search(truth.queries, min(CANDIDATES + 1, len(rows)))[1]
    recall = truth.recall(np.where(positions >= 0, rows[positions], -1))
    return Built(index, rows, factory, "", recall)


class _Truth:
    """Queries taken from the vectors themselves, and their exact neighbours among what was shown so far."""

    def __init__(self, faiss: Any, query_rows: Rows, queries: Vectors) -> None:
        self._faiss, self._query_rows, self.queries = faiss, query_rows, queries
        self._best = empty_hits(len(queries), _TOP + 1)

    def see(self, rows: Rows, vectors: Vectors) -> None:
        """Looks for neighbours among these."""
        count = min(_TOP + 1, len(rows))
        scores, found = self._faiss.knn(self.queries, vectors, count, metric=self._faiss.METRIC_INNER_PRODUCT)
        self._best = merge_hits([self._best, Hits(rows[found], scores)], _TOP + 1)

    def recall(self, found: Rows) -> float:
        """Share of the neighbours, the queries themselves left out, among the first of `found` (B, k)."""
        hits = total = 0
        for query, known, rows in zip(self._query_rows, self._best.rows, found, strict=True):
            wanted = set(known[(known >= 0) & (known != query)][:_TOP].tolist())
            hits += len(wanted & set(rows[rows != query][:_TOP].tolist()))
            total += len(wanted)
        return hits / total if total else 1.0


def _make(factory: str, dim: int) -> Any:
    faiss = load_faiss()
    return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)


def _fill(index: Any, scan: Scan, truth: _Truth | None, factory: str, num_expected: int) -> Built | None:
    """Adds what `scan` gives; an exact index has recall 1."""
    faiss = load_faiss()
    _reserve(index, num_expected)
    is_mapped = isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2)
    parts: list[Rows] = []
    num_added = 0
    for rows, vectors in scan():
        if is_mapped:
            index.add_with_ids(vectors, np.arange(num_added, num_added + len(rows)))
        else:
            index.add(vectors)
        if truth is not None:
            truth.see(rows, vectors)
        parts.append(rows)
        num_added += len(rows)
    return Built(index, np.concatenate(parts), factory, "", 1.0) if num_added else None


def _reserve(index: Any, num: int) -> None:
    """Takes the memory for vectors that are kept as they are; growing step by step would take up to three times it."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        index = faiss.downcast_index(index.refine_index)
    if isinstance(index, faiss.IndexFlatCodes):
        index.codes.resize(num * index.code_size)
        index.codes.resize(0)


def _sample_size(factory: str) -> int:
    lists = re.search(r"IVF(\d+)", factory)
    return min(max(_MIN_SAMPLE, _POINTS_PER_LIST * int(lists[1])), _MAX_SAMPLE) if lists else _MIN_SAMPLE


def _sample(scan: Scan, dim: int, num_expected: int, size: int) -> tuple[Rows, Vectors]:
    """Up to S rows (S,) and vectors (S, D), evenly spread."""
    step, offset, num = max(1, -(-num_expected // size)), 0, 0
    rows, vectors = np.empty(size, np.int64), np.empty((size, dim), np.float32)
    for batch_rows, batch in scan():
        chosen = np.arange(-offset % step, len(batch), step)[: size - num]
        end = num + len(chosen)
        rows[num:end], vectors[num:end] = batch_rows[chosen], batch[chosen]
        num, offset = end, (offset + len(batch)) % step
        if num == size:
            break
    return rows[:num], vectors[:num]


def _calibrated(built: Built, truth: _Truth, target: float) -> Built:
    """The index with the cheapest parameters that reach the target recall, or else those with the best recall."""
    space, found = load_faiss().ParameterSpace(), []
    for parameters in _candidates(built.factory):
        if parameters:
            space.set_index_parameters(built.index, parameters)
        started = time.thread_time()
        positions = built.index.search(truth.queries, min(CANDIDATES + 1, len(built.rows)))[1]
        seconds = time.thread_time() - started
        recall = truth.recall(np.where(positions >= 0, built.rows[positions], -1))
        found.append((recall < target, seconds if recall >= target else -recall, parameters, recall))
    _, _, parameters, recall = min(found)
    if parameters:
        space.set_index_parameters(built.index, parameters)
    return Built(built.index, built.rows, built.factory, parameters, recall)


def _candidates(factory: str) -> list[str]:
    """Search parameters to try, as FAISS writes them."""
    choices: list[list[str]] = []
    if lists := re.search(r"IVF(\d+)", factory):
        probes = [2**power for power in range(2, 9) if 2**power <= int(lists[1])]
        choices.append([f"nprobe={probe}" for probe in probes or [int(lists[1])]])
    elif re.search(r"HNSW|NSG", factory):
        name = "efSearch" if "HNSW" in factory else "search_L"
        choices.append([f"{name}={width}" for width in (64, 128, 256, 512)] if name == "efSearch" else [""])
    if re.search(r"Refine|RFlat", factory):
        choices.append([f"k_factor_rf={factor}" for factor in (1, 2, 4, 8, 16)])
    return [",".join(filter(None, chosen)) for chosen in itertools.product(*choices)]
