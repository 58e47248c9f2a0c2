"""CAGRA's calls of FAISS, against a FAISS that notes them: what a GPU does with them is seen in tests/gpu alone."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from retriever_service.dense.cagra import CAGRA, MIN_GRAPH, CagraSearcher, build_graph, can_build
from retriever_service.dense.choice import DenseIndexes
from retriever_service.dense.factory import build_from_all
from serving.errors import FailedPrecondition
from tests.retriever_service import dense_sources

DIM = 8


class FakeFaiss:
    """A FAISS with cuVS, as far as it is called; its graph is an exact index."""

    METRIC_INNER_PRODUCT, graph_build_algo_NN_DESCENT = 0, 7

    def __init__(self, options: str = "GPU CUVS OPTIMIZE") -> None:
        self.calls: list[Any] = []
        self.get_compile_options = lambda: options
        self.GpuIndexCagraConfig = SimpleNamespace
        self.SearchParametersCagra = SimpleNamespace

    def GpuIndexCagra(self, resources: str, dim: int, metric: int, config: Any) -> Any:
        self.calls.append(("made", resources, dim, metric, vars(config)))
        flat = faiss.IndexFlatIP(dim)

        def train(vectors: Any) -> None:
            self.calls.append(("trained", len(vectors)))
            flat.add(vectors)

        def copy_to(kept: Any) -> None:
            self.calls.append(("copied to", kept.base_level_only))
            kept.content = flat

        def copy_from(kept: Any) -> None:
            self.calls.append("copied from")
            flat.merge_from(kept.content)

        def search(queries: Any, count: int, params: Any) -> Any:
            self.calls.append(("searched", count, vars(params)))
            return flat.search(queries, count)

        return SimpleNamespace(train=train, copyTo=copy_to, copyFrom=copy_from, search=search)

    def IndexHNSWCagra(self, dim: int, degree: int, metric: int) -> Any:
        return SimpleNamespace(d=dim, degree=degree, base_level_only=False, content=None)


def unit_vectors(num: int, seed: int) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(num, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_graph_is_trained_on_all_vectors_and_kept_as_cpus_search_it() -> None:
    fake = FakeFaiss()
    kept = build_graph(fake, "resources", 1, unit_vectors(100, 0))
    config = {"device": 1, "graph_degree": 64, "intermediate_graph_degree": 128, "build_algo": 7}
    assert fake.calls == [("made", "resources", DIM, 0, config), ("trained", 100), ("copied to", True)]
    assert (kept.d, kept.degree) == (DIM, 32)


def test_a_kept_graph_is_searched_on_the_device_by_enough_candidates() -> None:
    fake, vectors = FakeFaiss(), unit_vectors(300, 0)
    kept = build_graph(fake, "resources", 0, vectors)
    searcher = CagraSearcher(fake, "resources", 0, kept, threading.Lock())
    scores, positions = searcher.search(vectors[:3], 10)
    assert positions[:, 0].tolist() == [0, 1, 2]
    assert scores.shape == (3, 10)
    searcher.search(vectors[:1], 100)
    assert [call[1:] for call in fake.calls if call[0] == "searched"] == [
        (10, {"itopk_size": 64}),
        (100, {"itopk_size": 128}),
    ]
    assert fake.calls.index("copied from") > fake.calls.index(("copied to", True))


def test_a_graph_is_judged_where_it_is_searched() -> None:
    fake, vectors = FakeFaiss(), unit_vectors(300, 0)
    rows = np.arange(10, 310)
    built = build_from_all(
        lambda: iter([(rows[:200], vectors[:200]), (rows[200:], vectors[200:])]),
        lambda given: build_graph(fake, "resources", 0, given),
        CAGRA,
        lambda graph: CagraSearcher(fake, "resources", 0, graph, threading.Lock()),
    )
    assert built is not None
    assert (built.factory, built.recall, built.rows.tolist()) == (CAGRA, 1.0, rows.tolist())
    assert build_from_all(lambda: iter(()), lambda given: given, CAGRA, None) is None


def test_only_a_faiss_with_cuvs_builds_graphs() -> None:
    assert can_build(FakeFaiss())
    assert not can_build(FakeFaiss("GPU OPTIMIZE"))
    assert not can_build(faiss)


def test_without_a_gpu_a_new_collection_is_refused_and_an_old_one_served() -> None:
    indexes, asked = DenseIndexes(), dense_sources.settings(index_factory=CAGRA)
    with pytest.raises(FailedPrecondition, match=r"GPU.*gpu-cuvs"):
        indexes.check_new(asked)
    assert indexes._policy(asked)(10**6, MIN_GRAPH) != CAGRA
    indexes.check_new(dense_sources.settings())


def test_the_graphs_file_is_searched_by_every_build_of_faiss(tmp_path: Any) -> None:
    """FAISS's own class, filled as a CPU can; the GPU's copy is of the same class."""
    vectors = unit_vectors(2_000, 0)
    graph = faiss.IndexHNSWCagra(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors)
    graph.base_level_only = True
    faiss.write_index(graph, str(tmp_path / "graph.faiss"))
    read = faiss.read_index(str(tmp_path / "graph.faiss"), faiss.IO_FLAG_MMAP_IFC)
    assert isinstance(read, faiss.IndexHNSWCagra)
    assert read.search(vectors[:50], 1)[1][:, 0].tolist() == list(range(50))
