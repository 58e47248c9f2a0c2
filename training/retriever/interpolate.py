"""``python -m training.retriever.interpolate``: weights between a pretrained encoder and the one trained from it.

Training on one kind of question costs others; a mean of the weights keeps most of both. Source: Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models" (WiSE-FT), equation 1.
"""

import argparse
import shutil
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from retriever_service.checkpoint import find_checkpoint

_WEIGHTS = "model.safetensors"


def interpolate(before: dict[str, Tensor], after: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """``(1 - share) * before + share * after`` for each of ``after``'s floating-point tensors.

    Raises:
        ValueError: ``share`` is outside [0, 1], or ``before`` lacks a tensor or has another shape of it.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], not {share}")
    mixed = {}
    for name, tensor in after.items():
        other = before.get(name)
        if other is None or other.shape != tensor.shape:
            raise ValueError(f"{name}: the encoder trained from has no such tensor of shape {tuple(tensor.shape)}")
        is_mixed = tensor.is_floating_point() and not tensor.equal(other)
        mixed[name] = (1 - share) * other + share * tensor if is_mixed else tensor
    return mixed


def main(arguments: list[str] | None = None) -> None:
    """Write the encoder between two."""
    parser = argparse.ArgumentParser(prog="python -m training.retriever.interpolate", description=__doc__)
    parser.add_argument("--before", default="all-MiniLM-L6-v2", help="name or path of the encoder trained from")
    parser.add_argument("--after", type=Path, required=True, help="checkpoint that the training wrote")
    parser.add_argument("--share", type=float, default=0.25, help="of the trained weights, in [0, 1]")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    flags = parser.parse_args(arguments)
    if (flags.after / "query").exists():
        raise SystemExit(
            f"--after {flags.after}: its questions have a half of their own; only single encoders can be mixed"
        )
    before, after = load_file(find_checkpoint(flags.before).path / _WEIGHTS), load_file(flags.after / _WEIGHTS)
    mixed = interpolate(before, after, flags.share)
    shutil.copytree(flags.after, flags.out)
    save_file({name: tensor.contiguous() for name, tensor in mixed.items()}, flags.out / _WEIGHTS, {"format": "pt"})
    Console().print(f"{flags.out}: {flags.share:g} of {flags.after}, the rest of {flags.before}")


if __name__ == "__main__":
    main()
