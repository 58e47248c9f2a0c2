"""What a reranker is to the rest of the retriever: pairs of query and passage go in, scores come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retriever_service.encoder import PassageText


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a passage that may answer it."""

    query: str
    passage: PassageText


class Reranker(Protocol):
    """Pairs to scores."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over what it is made of: equal digests, equal scores."""
        ...

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The score of each pair, in order; higher is better. One call at a time."""
        ...
