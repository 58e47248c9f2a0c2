"""Matrices on integer grids: how near they stay, what is exact, and how a second one is stored as a difference."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.packed_tensors import Coding, Difference, Rows, StoredTensor, TensorIndex, deflate


def random_matrix(seed: int, *, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(7, 33)) * scale).astype(np.float32)


def test_rows_round_to_the_nearest_step_of_their_own_scale() -> None:
    matrix = random_matrix(0)
    rows = Rows.of(matrix)
    assert rows.values.dtype == np.int8
    assert np.all(np.abs(rows.values).max(axis=1) == 127)
    assert np.all(np.abs(rows.matrix() - matrix) <= rows.scales[:, None] * 0.5001)


def test_a_row_of_zeros_stays_zero() -> None:
    assert not Rows.of(np.zeros((2, 4), dtype=np.float32)).matrix().any()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_a_restored_matrix_has_the_rows_that_it_was_restored_from(seed: int, scale: float) -> None:
    rows = Rows.of(random_matrix(seed, scale=scale))
    again = Rows.of(rows.matrix())
    assert np.array_equal(again.values, rows.values)
    assert np.array_equal(again.scales, rows.scales)


@pytest.mark.parametrize("change", [0.0, 0.001, 0.01])
def test_a_small_difference_keeps_the_precision_of_the_rows(change: float) -> None:
    matrix, base = random_matrix(0) + random_matrix(1) * np.float32(change), Rows.of(random_matrix(0))
    difference = Difference.between(matrix, base)
    assert difference is not None
    assert difference.step == 1
    assert np.all(np.abs(base.plus(difference).matrix() - matrix) <= base.scales[:, None] * 0.5001)


def test_a_large_difference_is_kept_to_a_third_of_itself_in_few_values() -> None:
    matrix, base = random_matrix(0) + random_matrix(1) * np.float32(0.3), Rows.of(random_matrix(0))
    difference = Difference.between(matrix, base)
    assert difference is not None
    assert difference.step > 1
    assert np.abs(difference.values).max() <= 5
    error, change = base.plus(difference).matrix() - matrix, matrix - base.matrix()
    assert np.linalg.norm(error) < np.linalg.norm(change) / 3


def test_there_is_no_difference_where_a_single_number_is_far_off() -> None:
    matrix = np.ones((200, 300), np.float32)
    changed = matrix.copy()
    changed[0, 0] = 1e3
    assert Difference.between(changed, Rows.of(matrix)) is None


def test_members_are_zlib_streams_no_longer_than_the_plain_one() -> None:
    for data in (bytes(1000), np.random.default_rng(0).normal(scale=30, size=4000).astype(np.int8).tobytes()):
        assert zlib.decompress(deflate(data)) == data
        assert len(deflate(data)) <= len(zlib.compress(data, 9))


def test_an_index_is_read_as_it_was_written() -> None:
    tensors = {
        "a": StoredTensor(Coding.ROWS, "int8", (2, 3)),
        "b": StoredTensor(Coding.DIFFERENCE, "int8", (2, 3), base="a", step=4),
    }
    index = TensorIndex(tensors, {"x/model.safetensors": {"w": "a"}})
    assert TensorIndex.from_json(index.to_json()) == index
