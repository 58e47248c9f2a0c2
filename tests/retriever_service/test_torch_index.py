import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_service.dense.exact import ExactIndex
from retriever_service.dense.torch_index import TorchIndex, check_device
from tests.retriever_service.dense_sources import DIM, FakeStore, brute_force, vector_of

QUERIES = np.stack([vector_of(row) for row in (10**6, 10**6 + 3, 10**6 + 6)])

steps = st.lists(
    st.one_of(st.tuples(st.just("add"), st.integers(1, 60)), st.tuples(st.just("remove"), st.integers(0, 10**6))),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@settings(deadline=None, max_examples=20)
@given(steps=steps, count=st.integers(1, 40), kept=st.integers(1, 5))
def test_after_any_changes_it_finds_what_exact_faiss_finds_and_masked_rows_never(dtype, steps, count, kept):
    store = FakeStore()
    index, exact = TorchIndex(DIM, dtype=dtype, max_block=64), ExactIndex(DIM)
    for name, number in steps:
        if name == "add":
            rows = store.add(number)
            index.add(*store.now.vectors(rows))
            exact.add(*store.now.vectors(rows))
        else:
            gone = [row for row in store.now.stored if (row * 2654435761 + number) % 3 == 0]
            store.remove(gone)
            for one in (index, exact):
                one.remove(gone)
    among = [row for row in range(1, store._last_row + 1) if row % 5 < kept]
    assert index.num_vectors == exact.num_vectors
    for found, expected in (
        (index.search(QUERIES, count), exact.search(QUERIES, count)),
        (index.search_among(QUERIES, np.array(among), count), exact.search_among(QUERIES, np.array(among), count)),
    ):
        assert found.rows.shape == expected.rows.shape
        assert set(found.rows[found.rows >= 0].tolist()) <= store.now.stored.keys()
        assert ((found.rows < 0) == (expected.rows < 0)).all()
        assert (np.isinf(found.scores) == (found.rows < 0)).all()
        if dtype == "float32":
            assert np.array_equal(found.rows, expected.rows)
            assert found.scores == pytest.approx(expected.scores, abs=1e-5)
        else:
            assert found.scores == pytest.approx(expected.scores, abs=0.02)
    few = index.search_among(QUERIES, np.array(among), count).rows
    assert set(few[few >= 0].tolist()) <= set(among)


def test_blocks_that_shrink_give_their_memory_back():
    store = FakeStore()
    index = TorchIndex(DIM, max_block=4_096)
    rows = store.add(6_000)
    index.add(*store.now.vectors(rows))
    before = index.num_bytes
    index.remove(range(1, 5_001))
    assert (index.num_vectors, index.num_bytes < before) == (1_000, True)
    rows = store.add(1)
    index.add(*store.now.vectors(rows))
    store.remove(range(1, 5_001))
    assert np.array_equal(index.search(QUERIES, 9).rows, brute_force(store.now.stored, QUERIES, 9))


def test_an_empty_index_finds_nothing():
    found = TorchIndex(DIM).search(QUERIES, 5)
    assert (found.rows == -1).all()
    assert found.rows.shape == (3, 5)


def test_loading_tells_how_far_it_is():
    store, told = FakeStore(), []
    store.add(200)
    TorchIndex(DIM, on_progress=told.append).load(store.now)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 2


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(RuntimeError):
        check_device("cuda:99")
