"""Other engines on the same vectors, each tuned to the recall that is asked for. Those not installed are left out."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module  # Of engines: installed or not, their types are nobody's business here.
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.retriever import data
from retriever_service.collection import Vectors

Found = npt.NDArray[np.int64]  # (B, k)
Search = Callable[[Vectors], Found]
_WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
_CONCURRENT = 16
_REFINED = 2  # Of LanceDB: so many times the hits are scored anew by their vectors as they are.


@dataclass(frozen=True, slots=True)
class Engine:
    """An index that was built. `tunings` search alike, each looking further than the one before."""

    build_seconds: float
    tunings: dict[str, Search]


def raw_faiss(corpus: data.Corpus, folder: Path, factory: str) -> Engine:
    """One index of all vectors by FAISS's factory string, kept in a file."""
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 4 * data.DIM  # As the service has it.
    path, started = folder / f"{corpus.num_vectors}-{factory.replace(',', '-')}.faiss", time.perf_counter()
    if not path.exists():
        index = faiss.index_factory(data.DIM, factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(np.concatenate([batch[::20] for _, batch in corpus.batches()]))
        for _, vectors in corpus.batches():
            index.add(vectors)
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(index, str(path))
    seconds, index = time.perf_counter() - started, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    if "Refine" not in factory:
        return Engine(seconds, {"": lambda vectors: index.search(vectors, data.TOP_K)[1]})
    kinds = [f"k_factor_rf={factor}" for factor in (1, 2, 4, 8, 16)]

    space: Any = faiss.ParameterSpace()

    def search(parameters: str, vectors: Vectors) -> Found:
        space.set_index_parameters(index, parameters)
        found: Found = index.search(vectors, data.CANDIDATES)[1][:, : data.TOP_K]
        return found

    return Engine(seconds, {parameters: partial(search, parameters) for parameters in kinds})


def _hnswlib(corpus: data.Corpus, folder: Path) -> Engine:
    hnswlib = import_module("hnswlib")
    started, index = time.perf_counter(), hnswlib.Index("ip", data.DIM)
    index.init_index(corpus.num_vectors, M=16, ef_construction=200)
    index.set_num_threads(1)
    for start, vectors in corpus.batches():
        index.add_items(vectors, np.arange(start, start + len(vectors)))

    def search(width: int, vectors: Vectors) -> Found:
        index.set_ef(width)
        return np.asarray(index.knn_query(vectors, data.TOP_K, num_threads=1)[0], np.int64)

    return Engine(time.perf_counter() - started, {f"ef={width}": partial(search, width) for width in _WIDTHS})


def _usearch(corpus: data.Corpus, folder: Path) -> Engine:
    usearch = import_module("usearch.index")
    started, index = time.perf_counter(), usearch.Index(ndim=data.DIM, metric="ip", connectivity=16, expansion_add=200)
    for start, vectors in corpus.batches():
        index.add(np.arange(start, start + len(vectors)), vectors, threads=1)

    def search(width: int, vectors: Vectors) -> Found:
        index.expansion_search = width
        keys = [index.search(vector, data.TOP_K, threads=1).keys for vector in vectors]
        return np.asarray(keys, np.int64)

    return Engine(time.perf_counter() - started, {f"ef={width}": partial(search, width) for width in _WIDTHS})


def _lancedb(corpus: data.Corpus, folder: Path) -> Engine:
    lancedb, pyarrow = import_module("lancedb"), import_module("pyarrow")

    def tables() -> Any:
        for start, vectors in corpus.batches():
            lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), data.DIM)
            yield pyarrow.record_batch({"id": pyarrow.array(range(start, start + len(vectors))), "vector": lists})

    started, schema = (
        time.perf_counter(),
        [("id", pyarrow.int64()), ("vector", pyarrow.list_(pyarrow.float32(), data.DIM))],
    )
    table = lancedb.connect(folder / "lancedb").create_table(
        "t", tables(), schema=pyarrow.schema(schema), mode="overwrite"
    )
    table.create_index(metric="dot", index_type="IVF_HNSW_SQ", num_partitions=max(1, corpus.num_vectors // 100_000))

    def search(width: int, vectors: Vectors) -> Found:
        width = max(width, _REFINED * data.TOP_K)  # It refuses less.
        asked = [table.search(vector).distance_type("dot").ef(width).refine_factor(_REFINED) for vector in vectors]
        found = [one.select(["id", "_distance"]).limit(data.TOP_K).to_arrow() for one in asked]
        return np.array([one["id"].to_numpy() for one in found])

    return Engine(time.perf_counter() - started, {f"ef={width}": partial(search, width) for width in _WIDTHS})


def _qdrant(corpus: data.Corpus, folder: Path) -> Engine:
    from qdrant_client import QdrantClient, models

    started, client = time.perf_counter(), QdrantClient(":memory:")
    client.create_collection("t", models.VectorParams(size=data.DIM, distance=models.Distance.DOT))
    for start, vectors in corpus.batches():
        client.upload_collection("t", vectors, ids=range(start, start + len(vectors)))

    def search(vectors: Vectors) -> Found:
        found = [client.query_points("t", vector.tolist(), limit=data.TOP_K).points for vector in vectors]
        return np.array([[int(point.id) for point in points] for points in found])

    return Engine(time.perf_counter() - started, {"": search})


def _milvus_lite(corpus: data.Corpus, folder: Path) -> Engine:
    from pymilvus import MilvusClient

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "milvus.db").unlink(missing_ok=True)
    started, client = time.perf_counter(), MilvusClient(str(folder / "milvus.db"))
    client.create_collection("t", dimension=data.DIM, metric_type="IP")
    for start, vectors in corpus.batches():
        client.insert("t", [{"id": start + i, "vector": vector} for i, vector in enumerate(vectors)])
    client.flush("t")

    def search(vectors: Vectors) -> Found:
        found = [client.search("t", [vector.tolist()], limit=data.TOP_K)[0] for vector in vectors]
        return np.array([[hit["id"] for hit in hits] for hits in found])

    return Engine(time.perf_counter() - started, {"": search})


ENGINES: dict[str, tuple[str, Callable[[data.Corpus, Path], Engine]]] = {
    "hnswlib": ("hnswlib", _hnswlib),
    "USearch": ("usearch", _usearch),
    "LanceDB": ("lancedb", _lancedb),
    "Qdrant, local mode": ("qdrant_client", _qdrant),
    "Milvus Lite": ("milvus_lite", _milvus_lite),
}
"""By name: the module it needs, and how it is built."""


def is_installed(name: str) -> bool:
    """Whether an engine can be measured here."""
    return importlib.util.find_spec(ENGINES[name][0]) is not None


def measure(engine: Engine, true: Found, target: float, num_queries: int) -> dict[str, Any]:
    """The first tuning that reaches the recall, or the last: its recall and times, one by one and 16 at once."""
    judged, reached = data.queries(len(true)), -1.0
    tunings = iter(engine.tunings.items())
    while reached < target and (further := next(tunings, None)) is not None:
        tuning, search = further
        reached = data.recall(search(judged), true)
    wanted = data.queries(num_queries)
    return {
        "tuning": tuning,
        "recall": reached,
        "build_seconds": round(engine.build_seconds, 1),
        "one_by_one": _timed(search, [vector[None] for vector in wanted], num_threads=1),
        "concurrent": _timed(search, [vector[None] for vector in wanted], num_threads=_CONCURRENT),
        "batch_of_8": _timed(search, np.array_split(wanted, max(1, num_queries // 8)), num_threads=1),
    }


def _timed(search: Search, parts: Sequence[Vectors], *, num_threads: int) -> dict[str, float]:
    """Milliseconds of CPU a query, and how many are answered a second; threads ask one after the other."""
    seconds: list[float] = []

    def ask(part: Vectors) -> None:
        faiss.omp_set_num_threads(1)  # It is a setting of the thread.
        started = time.perf_counter()
        search(part)
        seconds.append(time.perf_counter() - started)

    num_queries = sum(map(len, parts))
    with ThreadPoolExecutor(num_threads) as threads:
        cpu, started = time.process_time(), time.perf_counter()
        list(threads.map(ask, parts))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    return {
        "cpu_ms": round(1e3 * cpu / num_queries, 3),
        "p50_ms": round(1e3 * statistics.median(seconds), 3),
        "queries_per_second": round(num_queries / wall, 1),
    }
