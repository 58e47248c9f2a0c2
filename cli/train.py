"""`rag train`: hands over to the training programs."""

import argparse
from importlib import import_module

_PROGRAMS = {
    "generator": "training.generator.__main__",
    "joint": "training.joint.__main__",
    "retriever": "training.retriever.__main__",
    "tasks": "training.tasks.__main__",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the model; what follows it belongs to its program."""
    parser.add_argument("model", choices=sorted(_PROGRAMS), help="what to train")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of its program; --help after the model lists them")


def run(arguments: argparse.Namespace) -> int:
    """Trains."""
    import_module(_PROGRAMS[arguments.model]).main(arguments.arguments)
    return 0
