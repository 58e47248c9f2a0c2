"""``python -m training.generator.pack``: turn a checkpoint into the package data that ships."""

import argparse
from pathlib import Path

from rich.console import Console

from generator_service.packed_checkpoint import pack


def main(arguments: list[str] | None = None) -> None:
    """Pack a checkpoint and print the manifest."""
    parser = argparse.ArgumentParser(prog="python -m training.generator.pack", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a Hugging Face checkpoint")
    parser.add_argument("--out", type=Path, default=Path("generator_service/default_model"), help="packed folder")
    flags = parser.parse_args(arguments)
    Console().print(pack(flags.checkpoint, flags.out))


if __name__ == "__main__":
    main()
