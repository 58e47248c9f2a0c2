"""When segments are merged, and which. Pure.

New rows gather in the delta. When it is due it becomes a segment; on the way it takes in the segments before it that
are not much larger, so that a vector is written anew only each time its segment has doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_DELTA = 10_000
_DELTA_RATIO = 0.05
_REMOVED_RATIO = 0.2
_ABSORBED_RATIO = 2  # A segment up to this many times as large as what follows it is merged with that.
_MAX_DELTA_RATIO = 4  # Of what makes it due: beyond, changes wait for the merge under way.


@dataclass(frozen=True, slots=True)
class Extent:
    """A segment as planning sees it: it covers the rows in (after, up_to]."""

    after: int
    up_to: int
    num_stored: int
    num_live: int
    is_damaged: bool = False
    is_outdated: bool = False  # Of another kind than it would be built with today; changed with the next merge.

    @property
    def is_worn(self) -> bool:
        """Whether it is to be built anew."""
        return self.is_damaged or self.num_stored - self.num_live > _REMOVED_RATIO * self.num_stored


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A range of rows, (after, up_to], to become segments; up_to is None for all that are newer. `num` is expected."""

    after: int
    up_to: int | None
    num: int


def delta_due(num_vectors: int) -> int:
    """How many vectors the delta may hold before it becomes a segment."""
    return max(MIN_DELTA, int(_DELTA_RATIO * num_vectors))


def max_delta(num_vectors: int) -> int:
    """How many vectors the delta may hold at all."""
    return _MAX_DELTA_RATIO * delta_due(num_vectors)


def plan_merge(extents: Sequence[Extent], num_delta: int, capacity: int) -> list[Rebuild]:
    """What is to be built now, by ascending rows; extents that no range covers stay as they are.

    Args:
        extents: By ascending rows; what lies between two of them is gone for good.
        num_delta: Vectors in the delta.
        capacity: Vectors that a segment may hold.
    """
    is_due = num_delta > delta_due(num_delta + sum(extent.num_live for extent in extents))
    chosen = [extent.is_worn or (is_due and extent.is_outdated) for extent in extents]
    if is_due:
        size = num_delta
        for i in reversed(range(len(extents))):
            live = extents[i].num_live
            if live > _ABSORBED_RATIO * size or live + size > capacity:
                break
            chosen[i], size = True, size + live
    pieces: list[Rebuild | None] = [
        Rebuild(extent.after, extent.up_to, extent.num_live) if is_chosen else None
        for extent, is_chosen in zip(extents, chosen, strict=True)
    ]
    if is_due:
        pieces.append(Rebuild(extents[-1].up_to if extents else 0, None, num_delta))
    return _joined(pieces, capacity)


def _joined(pieces: Sequence[Rebuild | None], capacity: int) -> list[Rebuild]:
    """The ranges, neighbours made one where a segment may hold both."""
    plan: list[Rebuild] = []
    for i, piece in enumerate(pieces):
        if piece is None:
            continue
        if i and pieces[i - 1] is not None and plan[-1].num + piece.num <= capacity:
            plan[-1] = Rebuild(plan[-1].after, piece.up_to, plan[-1].num + piece.num)
        else:
            plan.append(piece)
    return plan
