"""Where each question's own passage ranks. Pure."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

CUTS = (1, 5, 20)


def gold_ranks(scores: Floats, gold: Places) -> Places:
    """The 1-based rank of each question's own passage; equal scores in order of place, as the retriever breaks ties.

    Args:
        scores: (Q, P).
        gold: (Q,) places of the own passages.
    """
    own = np.take_along_axis(scores, gold[:, None], 1)
    ties_before = (scores == own) & (np.arange(scores.shape[1]) < gold[:, None])
    return np.asarray(1 + (scores > own).sum(1) + ties_before.sum(1))


def metrics_of(ranks: Places) -> dict[str, Floats]:
    """Each metric's value (Q,) for each question."""
    recalls = {f"recall@{cut}": (ranks <= cut).astype(np.float64) for cut in CUTS}
    return {**recalls, "MRR": 1 / ranks}
