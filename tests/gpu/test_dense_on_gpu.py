"""Vector search on a GPU: what exact search finds, nothing deleted or filtered out, and its speed.

Skipped where there is no CUDA device, and FAISS's part where faiss is built without GPUs. The speeds are printed beside
the memory-bandwidth floor: reading every vector once. `pytest tests/gpu/test_dense_on_gpu.py -s` shows them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from retriever_service.collection import Rows, Vectors
from retriever_service.dense.choice import DenseIndexes, DenseOptions
from retriever_service.dense.exact import ExactIndex
from retriever_service.dense.library import load_faiss
from retriever_service.dense_index import DenseIndex
from tests.retriever_service import dense_sources

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
needs_gpu_faiss = pytest.mark.skipif(
    "GPU" not in load_faiss().get_compile_options().split(), reason="faiss is built without GPUs"
)
needs_cuvs = pytest.mark.skipif(
    "CUVS" not in load_faiss().get_compile_options().split(), reason="faiss is built without cuVS"
)
DIM, NUM = 384, 300_000
BACKENDS = [pytest.param("torch"), pytest.param("faiss", marks=needs_gpu_faiss)]


class Source:
    """A store of vectors that are made when they are read."""

    def __init__(self, num: int) -> None:
        self.vectors_of_all = unit_vectors(num, seed=0)
        self.rows = np.arange(1, num + 1)

    def meta(self, key: str, default: str = "") -> str:
        return default

    def last_sequence(self) -> int:
        return len(self.rows)

    def num_passages(self) -> int:
        return len(self.rows)

    def changes(self, after: int, limit: int) -> list[object]:
        return []

    def vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        return rows, self.vectors_of_all[rows - 1]

    def scan_vectors(self, after: int = 0, up_to: int | None = None):
        for start in range(after, len(self.rows) if up_to is None else up_to, 8_192):
            rows = self.rows[start : min(start + 8_192, up_to or len(self.rows))]
            yield self.vectors(rows)

    def row_at(self, after: int, offset: int) -> int | None:
        row = after + offset + 1
        return row if row <= len(self.rows) else None


def unit_vectors(num: int, seed: int) -> Vectors:
    generator = torch.Generator(device="cuda").manual_seed(seed)
    vectors = torch.randn((num, DIM), generator=generator, device="cuda")
    return torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(NUM)


@pytest.fixture(scope="module")
def exact(source: Source) -> ExactIndex:
    index = ExactIndex(DIM)
    index.load(source)
    return index


@pytest.fixture(params=BACKENDS)
def index(request: pytest.FixtureRequest, source: Source, tmp_path: Path) -> DenseIndex:
    make = DenseIndexes(DenseOptions(backend=request.param, device="cuda"))

    def never() -> object:
        raise AssertionError("no merge is due")

    made = make(tmp_path, dense_sources.settings(DIM), never)  # type: ignore[arg-type]
    made.load(source)
    return made


def test_it_finds_what_exact_search_on_a_cpu_finds(index: DenseIndex, exact: ExactIndex) -> None:
    queries = unit_vectors(64, seed=1)
    found, expected = index.search(queries, 20), exact.search(queries, 20)
    shared = [len(set(a) & set(b)) / 20 for a, b in zip(found.rows, expected.rows, strict=True)]
    assert np.mean(shared) > 0.98  # Half precision may swap what ties but for rounding.
    assert np.abs(found.scores - expected.scores).max() < 2e-3


def test_what_is_deleted_or_outside_a_filter_is_never_found(index: DenseIndex, exact: ExactIndex) -> None:
    queries = unit_vectors(64, seed=2)
    best = exact.search(queries, 5).rows
    gone = np.unique(best[:, ::2])
    index.remove(gone.tolist())
    assert not np.isin(index.search(queries, 50).rows, gone).any()
    random = np.random.default_rng(0)
    for num in (1, 100, 10_000):
        among = np.unique(random.choice(NUM, num, replace=False) + 1)
        rows = index.search_among(queries, among, 50).rows
        assert np.isin(rows[rows >= 0], among).all()
        assert not np.isin(rows, gone).any()
        assert ((rows >= 0).sum(axis=1) == min(50, len(np.setdiff1d(among, gone)))).all()


def test_vectors_added_later_are_found_at_once(index: DenseIndex) -> None:
    added = unit_vectors(100, seed=3)
    index.add(np.arange(NUM + 1, NUM + 101), added)
    assert index.search(added, 1).rows[:, 0].tolist() == list(range(NUM + 1, NUM + 101))


@needs_cuvs
def test_a_graph_finds_its_neighbours_and_a_cpu_serves_its_file(
    source: Source, exact: ExactIndex, tmp_path: Path
) -> None:
    settings, queries = dense_sources.settings(DIM, index_factory="CAGRA"), unit_vectors(64, seed=5)
    expected = exact.search(queries, 10).rows
    for device in ("cuda", "cpu"):
        indexes = DenseIndexes(DenseOptions(device=device))
        if device == "cuda":
            indexes.check_new(settings)
        index = indexes(tmp_path, settings, lambda: None)  # type: ignore[arg-type, return-value]
        index.load(source)
        assert index.kind == "CAGRA"
        found = index.search(queries, 10).rows
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)])
        sys.stdout.write(f"\nCAGRA on {device}: recall {recall:.3f}, measured when built {index.measured_recall:.3f}\n")
        assert recall > (0.8 if device == "cuda" else 0.3)  # Random vectors are the hardest; the default looks little.
        gone = np.unique(found[:, :3])
        index.remove(gone.tolist())
        assert not np.isin(index.search(queries, 10).rows, gone).any()
        index.close()


def test_speed_beside_the_memory_bandwidth_floor(index: DenseIndex) -> None:
    floor = seconds_of(lambda: read_all(NUM * DIM * 2))
    for batch in (1, 16, 64):
        queries = unit_vectors(batch, seed=4)
        took = seconds_of(lambda queries=queries: index.search(queries, 50))
        sys.stdout.write(f"\n{type(index).__name__}, batch {batch}: {1e3 * took:.3f} ms; floor {1e3 * floor:.3f} ms\n")
        assert np.isfinite(took)


_BUFFER: dict[int, torch.Tensor] = {}


def read_all(num_bytes: int) -> None:
    """Reads as many bytes of the device's memory once."""
    buffer = _BUFFER.setdefault(num_bytes, torch.ones(num_bytes // 4, device="cuda"))
    buffer.sum().item()


def seconds_of(run: Callable[[], object]) -> float:
    """The median of 20, after two to warm up."""
    times = []
    for _ in range(22):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:]))
