"""Rows of similar length lie together, and padding stays within the bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from generator_service.models.buckets import buckets, packs, padding

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_every_row_is_in_one_bucket_and_at_most_a_quarter_of_a_bucket_is_padding(
    lengths: list[int], max_tokens: int
) -> None:
    groups = buckets(lengths, max_tokens=max_tokens)
    assert sorted(number for group in groups for number in group) == list(range(len(lengths)))
    for group in groups:
        inside = [lengths[number] for number in group]
        assert inside == sorted(inside, reverse=True)
        assert 4 * min(inside) >= 3 * max(inside)
        assert 4 * padding(inside) <= max(inside) * len(inside)
        assert len(group) == 1 or max(inside) * len(group) <= max_tokens


@given(LENGTHS, st.integers(1, 200))
def test_packs_hold_every_row_once_and_no_more_tokens_than_allowed(lengths: list[int], max_tokens: int) -> None:
    groups = list(packs(lengths, max_tokens=max_tokens))
    order = [number for group in groups for number in group]
    assert order == sorted(range(len(lengths)), key=lambda number: lengths[number])
    assert all(len(group) == 1 or sum(lengths[number] for number in group) <= max_tokens for group in groups)


def test_rows_of_one_length_need_no_padding() -> None:
    assert buckets([7, 7, 7], max_tokens=100) == [[0, 1, 2]]
    assert padding([7, 7, 7]) == 0
