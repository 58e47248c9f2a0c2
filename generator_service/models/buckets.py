"""How rows of different lengths are put together. Pure.

A bucket holds rows of similar length, so that padding them to its longest stays cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_MIN_FILL = 0.75


def buckets(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Groups row numbers by similar length, for models that pad.

    Args:
        lengths: Tokens of each row.
        max_tokens: Tokens of a bucket, padding included; a row longer than that has a bucket of its own.

    Returns:
        Each row once. In every bucket, longest row first, no row is shorter than three quarters of the longest: at most
        a quarter of a bucket is padding.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        longest = lengths[groups[-1][0]] if groups else 0
        if not groups or lengths[number] < _MIN_FILL * longest or (len(groups[-1]) + 1) * longest > max_tokens:
            groups.append([])
        groups[-1].append(number)
    return groups


def padding(lengths: Sequence[int]) -> int:
    """Tokens that fill rows up to the longest of them."""
    return max(lengths) * len(lengths) - sum(lengths)


def packs(lengths: Sequence[int], *, max_tokens: int) -> Iterator[list[int]]:
    """Groups row numbers, shortest first, for models that lay rows side by side without padding.

    Args:
        lengths: Tokens of each row.
        max_tokens: Tokens of a group; a row longer than that has a group of its own.
    """
    group: list[int] = []
    size = 0
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        if group and size + lengths[number] > max_tokens:
            yield group
            group, size = [], 0
        group.append(number)
        size += lengths[number]
    if group:
        yield group
