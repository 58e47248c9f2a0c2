"""`rag distill`: hands over to the distillation programs."""

import argparse
from importlib import import_module

_PROGRAMS = {
    "generator": "training.distillation.generator",
    "encoder": "training.distillation.encoder",
    "rag": "training.distillation.rag",
    "report": "training.distillation.report",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what to distil; what follows it belongs to its program."""
    parser.add_argument("program", choices=sorted(_PROGRAMS), help="what to distil, or a report of teacher and student")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of its program; --help after the name lists them")


def run(arguments: argparse.Namespace) -> int:
    """Distils, or reports."""
    import_module(_PROGRAMS[arguments.program]).main(arguments.arguments)
    return 0
