"""`rag backup` and `rag restore`: all collections of a retriever's data directory, whether it is running or not."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.addresses import DEFAULT_DATA_DIR
from cli.errors import CommandFailed

_MEBIBYTE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the backup")
    parser.add_argument(
        "--data-dir", type=Path, default=DEFAULT_DATA_DIR, help="of `rag up`, on this machine (default: %(default)s)"
    )
    parser.add_argument(
        "--retriever-dir", type=Path, help="the retriever's own data directory (default: DATA_DIR/retriever)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Backs up, or restores: the command says which."""
    data_dir = arguments.retriever_dir or arguments.data_dir / "retriever"
    target: Path = arguments.directory
    if arguments.command == "backup":
        if not data_dir.is_dir():
            raise CommandFailed(f"there is no retriever's data in {data_dir}")
        done = _run("create", data_dir, target)
        print(f"backed up {', '.join(done['collections'])} to {target}: {done['num_bytes'] / _MEBIBYTE:,.1f} MiB")
    else:
        done = _run("restore", target, data_dir)
        print(f"restored {', '.join(done['collections'])} into {data_dir}")
    return 0


def _run(action: str, *paths: Path) -> dict[str, Any]:
    """Runs it where the files are: no service needs to know of other machines' directories."""
    argv = [sys.executable, "-m", "retriever_service.backup", action, *map(str, paths)]
    finished = subprocess.run(argv, capture_output=True, text=True, check=False)
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise CommandFailed(lines[-1])
    done: dict[str, Any] = json.loads(finished.stdout)
    return done
