"""The entry point `rag`: picks the command and imports its module alone, so that `rag --help` starts at once."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from cli.errors import CommandFailed

# Name → module (with `add_arguments(parser)` and `run(arguments) -> exit code`), help.
_COMMANDS = {
    "up": ("cli.up", "start the three services; Ctrl-C stops them"),
    "ingest": ("cli.ingest", "put files and directories into a collection"),
    "ask": ("cli.ask", "ask a question and see the answer with its cited passages"),
    "chat": ("cli.chat", "ask one question after the other, each understood with those before it"),
    "search": ("cli.search", "find passages"),
    "status": ("cli.status", "show the services: health, models, indexes, limits"),
    "collections": ("cli.collection", "list, create, describe, configure or drop collections"),
    "sources": ("cli.sources", "list the sources of a collection"),
    "patch": ("cli.patch", "change metadata of passages"),
    "delete": ("cli.purge", "take passages or sources out; snapshots keep them"),
    "purge": ("cli.purge", "erase passages or sources for good, from snapshots too"),
    "snapshot": ("cli.snapshot", "freeze a collection's state, serve it, roll back, compare"),
    "reencode": ("cli.reencode", "build another encoder's vectors while the present ones serve"),
    "export": ("cli.export", "write a collection to a file"),
    "import": ("cli.import_", "read a file of `rag export` into a collection"),
    "backup": ("cli.backup", "copy all collections of this machine, also while they are served"),
    "restore": ("cli.backup", "put the collections of a backup into an empty data directory"),
    "evaluate": ("cli.evaluate", "measure answers and retrieval on questions with known answers"),
    "evaluate compare": ("cli.evaluate_compare", "compare two runs of `rag evaluate` question by question"),
    "evaluate report": ("cli.evaluate_report", "report on the results of `rag evaluate` once more"),
    "tune": ("cli.tune", "fit a collection's fusion and temperature to questions with known answers"),
    "train": ("cli.train", "train a model"),
    "distill": ("cli.train", "make a smaller, faster model that answers like its teacher"),
    "demo": ("cli.demo", "start, ingest the sample knowledge base, ask five questions, stop"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 for a failure told in one line, 2 for wrong usage."""
    given = _with_joined_name(list(sys.argv[1:] if argv is None else argv))
    parser = argparse.ArgumentParser(prog="rag", description="Ask questions, get cited answers.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, (module, help_) in _COMMANDS.items():
        command = commands.add_parser(name, help=help_, description=help_.capitalize() + ".", allow_abbrev=False)
        if name == chosen:
            import_module(module).add_arguments(command)
    arguments = parser.parse_args(given)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines tell a user nothing; before its import.
    try:
        code: int = import_module(_COMMANDS[arguments.command][0]).run(arguments)
        sys.stdout.flush()
        return code
    except CommandFailed as error:
        print(f"rag: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # The reader of a pipe, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("rag: interrupted", file=sys.stderr)
        return 130


def _with_joined_name(words: list[str]) -> list[str]:
    """Makes one word of a command that has two, such as "evaluate compare"."""
    name = " ".join(words[:2])
    return [name, *words[2:]] if name in _COMMANDS else words


if __name__ == "__main__":
    sys.exit(main())
