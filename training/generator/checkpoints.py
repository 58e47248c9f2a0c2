"""What a run leaves on disk: a resumable state and plain Hugging Face checkpoints, both written atomically."""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BartForConditionalGeneration, PreTrainedTokenizerBase

from training.generator.optimizer import MasterWeights

_STATE = "state.pt"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: steps done, training seconds spent over all its starts."""

    step: int = 0
    elapsed_seconds: float = 0.0


def save_state(folder: Path, weights: MasterWeights, progress: Progress) -> None:
    """Write the resumable state; a crash leaves the earlier one whole."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{_STATE}.partial"
    torch.save({"weights": weights.state_dict(), "progress": asdict(progress)}, partial)
    os.replace(partial, folder / _STATE)


def load_state(folder: Path, weights: MasterWeights) -> Progress:
    """Restore ``weights`` in place from ``folder``.

    Raises:
        FileNotFoundError: the run never saved a state there.
    """
    state: dict[str, Any] = torch.load(folder / _STATE, weights_only=True)
    weights.load_state_dict(state["weights"])
    return Progress(**state["progress"])


def save_checkpoint(
    folder: Path, generator: BartForConditionalGeneration, weights: MasterWeights, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write ``folder`` as a float32 Hugging Face checkpoint without the span head, replacing an earlier one."""
    prefix = "generator."
    plain = BartForConditionalGeneration(type(generator.config)(**generator.config.to_dict()))
    plain.load_state_dict({name: tensor.float() for name, tensor in generator.state_dict().items()})
    masters = weights.named_masters()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if prefix + name in masters:
                parameter.copy_(masters[prefix + name])
    plain.config.dropout = 0.0
    plain.config.dtype = torch.float32
    plain.generation_config = generator.generation_config
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    plain.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
