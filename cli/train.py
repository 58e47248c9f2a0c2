"""`rag train` and `rag distill`: hand over to the training programs."""

import argparse
from importlib import import_module

_PROGRAMS = {
    "train": {
        "generator": "training.generator.__main__",
        "joint": "training.joint.__main__",
        "retriever": "training.retriever.__main__",
        "tasks": "training.tasks.__main__",
    },
    "distill": {
        "encoder": "training.distillation.encoder",
        "generator": "training.distillation.generator",
        "rag": "training.distillation.rag",
        "report": "training.distillation.report",
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the program; what follows it belongs to that."""
    command = parser.prog.rpartition(" ")[2]
    parser.add_argument("program", choices=sorted(_PROGRAMS[command]), help="one of its programs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of its program; --help after the name lists them")


def run(arguments: argparse.Namespace) -> int:
    """Trains, distils, or reports."""
    import_module(_PROGRAMS[arguments.command][arguments.program]).main(arguments.arguments)
    return 0
