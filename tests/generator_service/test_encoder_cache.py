"""Encoder outputs are kept within a bound in bytes, under question, passage and model, and equal rows are read once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from generator_service.encoder_cache import EncoderCache
from generator_service.models.base import EncodedRow
from generator_service.row_encoder import RowEncoder


def row(num_tokens: int, fill: float = 0.0) -> EncodedRow:
    """A row of 4 bytes per token."""
    return EncodedRow(torch.full((num_tokens, 1), fill))


def test_the_least_recently_used_row_goes_first() -> None:
    cache = EncoderCache(12, "m")
    first, second, third, fourth = (cache.key([i]) for i in range(4))
    for key in (first, second, third):
        cache.put(key, row(1))
    assert cache.get(first) is not None
    cache.put(fourth, row(1))
    assert [key in cache for key in (first, second, third, fourth)] == [True, False, True, True]
    assert (cache.num_bytes, cache.num_evictions) == (12, 1)


def test_a_row_larger_than_the_cache_is_not_kept_and_evicts_nothing() -> None:
    cache = EncoderCache(8, "m")
    cache.put(cache.key([1]), row(1))
    cache.put(cache.key([2]), row(3))
    assert (len(cache), cache.num_bytes, cache.num_evictions) == (1, 4, 0)


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = EncoderCache(0, "m")
    cache.put(cache.key([1]), row(1))
    assert (len(cache), cache.get(cache.key([1]))) == (0, None)


def test_the_key_is_the_whole_row_and_the_model() -> None:
    cache, other = EncoderCache(0, "one model"), EncoderCache(0, "another")
    question_and_passage = cache.key([5, 6, 7])
    assert question_and_passage == cache.key((5, 6, 7))
    assert question_and_passage not in (cache.key([6, 7]), cache.key([5, 6]), cache.key([5, 67]), other.key([5, 6, 7]))


def test_a_kept_row_owns_exactly_its_memory() -> None:
    cache, batch = EncoderCache(100, "m"), torch.arange(40.0)[:, None]
    cache.put(cache.key([1]), EncodedRow(batch[3:5]))
    kept = cache.get(cache.key([1]))
    assert kept is not None
    assert kept.states.untyped_storage().nbytes() == kept.states.nbytes == 8
    assert kept.states.flatten().tolist() == [3.0, 4.0]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.integers(1, 5)), max_size=50))
def test_it_behaves_like_the_plainest_cache(actions: list[tuple[bool, int, int]]) -> None:
    cache, plain = EncoderCache(40, "m"), OrderedDict[int, int]()
    for puts, number, size in actions:
        key = cache.key([number])
        if puts and number not in plain:
            cache.put(key, row(size))
            plain[number] = 4 * size
            while sum(plain.values()) > 40:
                plain.popitem(last=False)
        elif not puts:
            assert (cache.get(key) is not None) == (number in plain)
            if number in plain:
                plain.move_to_end(number)
        assert cache.num_bytes == sum(plain.values()) <= 40


def test_equal_rows_of_a_batch_are_encoded_once_even_without_a_cache(tiny: Any) -> None:
    model = tiny.fake()
    encoder = RowEncoder(model, EncoderCache(0, "m"))
    states, work = encoder.encode(encoder.rows([[3, 4], [5], [3, 4]]))
    assert model.counters["rows_encoded"] == work.num_rows == 2
    assert (work.num_tokens, work.num_hits) == (3, 1)
    assert [each.states.flatten().tolist() for each in states] == [[3.0, 4.0], [5.0], [3.0, 4.0]]


def test_what_is_cached_costs_nothing_and_is_not_encoded(tiny: Any) -> None:
    model = tiny.fake()
    encoder = RowEncoder(model, EncoderCache(1000, "m"))
    rows = encoder.rows([[3, 4], [5]])
    assert encoder.cost([*rows, *rows]) == 3
    fresh, _ = encoder.encode(rows)
    assert encoder.cost(rows) == 0
    again, work = encoder.encode(rows)
    assert [one.states is other.states for one, other in zip(fresh, again, strict=True)] == [True, True]
    assert (work.num_rows, work.num_hits, work.cache_bytes) == (0, 2, 12)
    assert model.counters["rows_encoded"] == 2
