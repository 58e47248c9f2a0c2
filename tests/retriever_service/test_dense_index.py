import importlib.metadata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_service.dense import library
from retriever_service.dense.exact import ExactIndex
from retriever_service.dense.library import load_faiss, load_gpu_faiss
from retriever_service.dense_index import Hits, merge_hits

DIM = 8


def vectors_of(rows):
    return np.stack([np.random.default_rng(row).normal(size=DIM) for row in rows]).astype(np.float32)


def add(index, rows):
    index.add(np.array(rows, np.int64), vectors_of(rows))


def brute_force(query, rows, count):
    ordered = sorted(rows, key=lambda row: -float(vectors_of([row])[0] @ query))
    return ordered[:count]


operations = st.lists(
    st.one_of(st.tuples(st.just("add"), st.integers(1, 40)), st.tuples(st.just("remove"), st.integers(0, 10**6))),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(operations, st.integers(1, 30))
def test_search_equals_brute_force_after_any_adds_and_removes(steps, count):
    index, live, last = ExactIndex(DIM), set(), 0
    for name, number in steps:
        if name == "add":
            rows = list(range(last + 1, last + 1 + number))
            add(index, rows)
            live |= set(rows)
            last += number
        else:
            gone = {row for row in live if (row * 2654435761 + number) % 3 == 0}
            index.remove(gone)
            live -= gone
    queries = vectors_of([10**7, 10**7 + 1, 10**7 + 2, 10**7 + 3, 10**7 + 4])
    found = index.search(queries, count)
    assert index.num_vectors == len(live)
    for query, rows, scores in zip(queries, found.rows, found.scores, strict=True):
        expected = brute_force(query, live, count)
        assert rows[rows >= 0].tolist() == expected
        assert scores[: len(expected)] == pytest.approx([vectors_of([row])[0] @ query for row in expected], rel=1e-4)
    among = np.array([*sorted(live)[::2], 10**9], np.int64)
    few = index.search_among(queries[:1], among, count)
    assert few.rows[0][few.rows[0] >= 0].tolist() == brute_force(queries[0], set(among.tolist()) & live, count)


def test_compaction_keeps_what_lives():
    index = ExactIndex(DIM)
    add(index, range(1, 6_001))
    before = index.num_bytes
    index.remove(range(1, 5_001))
    assert (index.num_vectors, index.num_bytes < before) == (1_000, True)
    add(index, [6_001])
    query = vectors_of([6_001])
    assert index.search(query, 9).rows[0].tolist() == brute_force(query[0], range(5_001, 6_002), 9)


def test_replaying_additions_and_removals_changes_nothing():
    index = ExactIndex(DIM)
    for _ in range(2):
        add(index, [1, 2, 3])
        index.remove([2, 99])
    assert index.num_vectors == 2
    assert 2 not in index.search(vectors_of([2]), 3).rows


def test_an_empty_index_finds_nothing():
    found = ExactIndex(DIM).search(vectors_of([1, 2]), 5)
    assert (found.rows == -1).all()
    assert found.rows.shape == (2, 5)


def test_hits_of_several_indexes_become_one_ranking_filled_up_where_fewer_match():
    one = Hits(np.array([[4, 9], [2, -1]]), np.array([[0.9, 0.1], [0.3, -np.inf]], np.float32))
    other = Hits(np.array([[7], [-1]]), np.array([[0.5], [-np.inf]], np.float32))
    assert merge_hits([one, other], 2).rows.tolist() == [[4, 7], [2, -1]]
    merged = merge_hits([one, other], 5)
    assert merged.rows.tolist() == [[4, 7, 9, -1, -1], [2, -1, -1, -1, -1]]
    assert merged.scores[0, :3].tolist() == pytest.approx([0.9, 0.5, 0.1])
    assert np.isneginf(merged.scores[0, 3:]).all()


def test_two_faiss_distributions_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.15.1")
    library._checked_faiss.cache_clear()
    with pytest.raises(RuntimeError, match="exactly one of faiss-cpu, faiss-gpu"):
        load_faiss()


def test_a_gpu_is_refused_where_faiss_has_none(monkeypatch):
    faiss = load_faiss()
    monkeypatch.setattr(faiss, "get_compile_options", lambda: "OPTIMIZE AVX2 ")
    with pytest.raises(RuntimeError, match="dense-backend torch"):
        load_gpu_faiss()
    monkeypatch.setattr(faiss, "get_compile_options", lambda: "OPTIMIZE GPU ")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(RuntimeError, match="finds none"):
        load_gpu_faiss()


def test_each_thread_that_searches_uses_one_core():
    def num_threads():
        return load_faiss().omp_get_max_threads()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(num_threads).result() == 1


def test_gemm_starts_at_four_queries_of_the_largest_dimension_seen():
    faiss = load_faiss()
    faiss.cvar.distance_compute_blas_threshold = 128_000
    for dim, expected in ((384, 1_536), (1_024, 4_096), (384, 4_096)):
        ExactIndex(dim)
        assert faiss.cvar.distance_compute_blas_threshold == expected
