"""FAISS on a GPU: one set of resources for each device, for the process's life; one search at a time.

Filters and deletions never go to the device: some builds of FAISS ignore selectors there, silently. What a search
finds is filtered afterwards, as on a CPU.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever_service.collection import Vectors
from retriever_service.dense.cagra import CagraSearcher, build_graph, can_build
from retriever_service.dense.factory import EXACT
from retriever_service.dense.library import load_gpu_faiss

_MAX_FOUND = 2_048  # FAISS's kernels find no more.
_MAX_SHARE = 0.6  # Of the device's memory, for vectors of two bytes a number.


class GpuPlace:
    """Copies indexes to one GPU, with half-precision vectors. Call it with an index."""

    def __init__(self, device: int) -> None:
        """Takes the device's resources.

        Raises:
            RuntimeError: When faiss cannot use a GPU, or has not this one.
        """
        self._faiss = load_gpu_faiss()
        if device >= self._faiss.get_num_gpus():
            raise RuntimeError(f"dense_device cuda:{device}: faiss finds {self._faiss.get_num_gpus()} GPUs")
        self._device, self._resources = device, self._faiss.StandardGpuResources()
        self._memory_bytes = _memory_bytes(device)
        self._lock = threading.Lock()  # A device takes one search at a time, and none beside a copy.

    @property
    def can_build_graphs(self) -> bool:
        """Whether `build_graph` works."""
        return can_build(self._faiss)

    def build_graph(self, vectors: Vectors) -> Any:
        """A CAGRA graph of (N, D) vectors, as it is kept in a file."""
        with self._lock:
            return build_graph(self._faiss, self._resources, self._device, vectors)

    def __call__(self, index: Any) -> Any:
        """A copy on the device; of a graph that this FAISS cannot bring there, the index itself."""
        if isinstance(self._faiss.downcast_index(index), self._faiss.IndexHNSWCagra):
            if not self.can_build_graphs:
                return index
            return CagraSearcher(self._faiss, self._resources, self._device, index, self._lock)
        options = self._faiss.GpuClonerOptions()
        options.useFloat16 = True
        with self._lock:
            copy = self._faiss.index_cpu_to_gpu(self._resources, self._device, index, options)
        return GpuSearcher(copy, self._lock)

    def factory_for(self, dim: int, num_vectors: int, size: int) -> str:
        """Exact while the vectors fit into the device's memory; then lists of bytes."""
        if num_vectors * dim * 2 <= _MAX_SHARE * self._memory_bytes:
            return EXACT
        return f"IVF{round(4 * size**0.5)},SQ8"


class GpuSearcher:
    """An index on a GPU."""

    max_found = _MAX_FOUND

    def __init__(self, index: Any, lock: threading.Lock) -> None:
        self._index, self._lock = index, lock

    def search(self, queries: Vectors, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and positions, (B, count) each."""
        with self._lock:
            scores, positions = self._index.search(queries, count)
        return scores, positions


def _memory_bytes(device: int) -> int:
    """The device's memory as torch knows it; a small device's, where torch is built without GPUs."""
    import torch

    if not torch.cuda.is_available():
        return 16 << 30
    return int(torch.cuda.get_device_properties(device).total_memory)
