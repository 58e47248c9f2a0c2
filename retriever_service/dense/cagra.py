"""NVIDIA's graph index (CAGRA, by cuVS), on request: built and searched on a GPU, kept as the same graph for CPUs.

The file holds FAISS's `IndexHNSWCagra`, which every build of FAISS reads and searches: without a GPU a collection is
served from it, more slowly. A graph takes no vector in and gives none away, which segments do not ask for.

Source: Ootomo et al. 2023 (arXiv 2308.15136); FAISS's GpuIndexCagra.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever_service.collection import Vectors

CAGRA = "CAGRA"  # In place of a factory string, which FAISS has none of.
MIN_GRAPH = 20_000  # Vectors of a segment; fewer are searched exactly in less time.
_GRAPH_DEGREE, _BUILD_DEGREE = 64, 128
_MIN_LOOKED_AT, _MAX_FOUND = 64, 512  # Candidates that a search keeps: cuVS wants a multiple of 32, at least `count`.


def can_build(faiss: Any) -> bool:
    """Whether this build of FAISS has the index: the wheels with cuVS alone have."""
    return "CUVS" in faiss.get_compile_options().split() and hasattr(faiss, "GpuIndexCagra")


def build_graph(faiss: Any, resources: Any, device: int, vectors: Vectors) -> Any:
    """The graph of (N, D) vectors, made on the GPU, as CPUs search it."""
    config = faiss.GpuIndexCagraConfig()
    config.device = device
    config.graph_degree, config.intermediate_graph_degree = _GRAPH_DEGREE, _BUILD_DEGREE
    config.build_algo = faiss.graph_build_algo_NN_DESCENT
    built = faiss.GpuIndexCagra(resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)
    built.train(vectors)  # There is no add.
    kept = faiss.IndexHNSWCagra(vectors.shape[1], _GRAPH_DEGREE // 2, faiss.METRIC_INNER_PRODUCT)
    kept.base_level_only = True  # Nothing is ever added, so that the levels above it are not needed.
    built.copyTo(kept)
    return kept


class CagraSearcher:
    """A graph on a GPU."""

    max_found = _MAX_FOUND

    def __init__(self, faiss: Any, resources: Any, device: int, graph: Any, lock: threading.Lock) -> None:
        """Copies a graph to the device; `lock` is held by whoever uses that."""
        config = faiss.GpuIndexCagraConfig()
        config.device = device
        self._faiss, self._lock = faiss, lock
        with lock:
            self._index = faiss.GpuIndexCagra(resources, graph.d, faiss.METRIC_INNER_PRODUCT, config)
            self._index.copyFrom(graph)

    def search(self, queries: Vectors, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and positions, (B, count) each."""
        parameters = self._faiss.SearchParametersCagra()
        parameters.itopk_size = max(_MIN_LOOKED_AT, -(-count // 32) * 32)
        with self._lock:
            scores, positions = self._index.search(queries, count, params=parameters)
        return scores, positions
