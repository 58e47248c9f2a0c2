"""Brute force over small vocabularies."""

from __future__ import annotations

import itertools


def every_answer(vocab: int, eos: int, length: int) -> list[tuple[int, ...]]:
    """Every token sequence that ends at its first end-of-sequence or at `length`."""
    others = [token for token in range(vocab) if token != eos]
    ended = [(*prefix, eos) for size in range(length) for prefix in itertools.product(others, repeat=size)]
    return ended + list(itertools.product(others, repeat=length))
