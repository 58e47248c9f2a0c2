"""Where a run stands, and its resumable state on disk, written atomically."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.runtime.optimizer import MasterWeights

STATE = "state.pt"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        elapsed_seconds: training time over all its starts, measuring and saving not counted.
        best: the best value of the watched metric so far.
        num_stale: measurements since then.
    """

    step: int = 0
    elapsed_seconds: float = 0.0
    best: float | None = None
    num_stale: int = 0


def has_state(folder: Path) -> bool:
    """Whether a run has left its state in ``folder``."""
    return (folder / STATE).exists()


def save_state(folder: Path, weights: MasterWeights, progress: Progress) -> None:
    """Write the resumable state; a crash leaves the earlier one whole."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{STATE}.partial"
    torch.save({"weights": weights.state_dict(), "progress": asdict(progress)}, partial)
    os.replace(partial, folder / STATE)


def load_state(folder: Path, weights: MasterWeights) -> Progress:
    """Restore ``weights`` in place from ``folder``.

    Raises:
        FileNotFoundError: the run never saved a state there.
    """
    state: dict[str, Any] = torch.load(folder / STATE, weights_only=True)
    weights.load_state_dict(state["weights"])
    return Progress(**state["progress"])


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, then put it in the place of ``folder``."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
