"""`rag demo`: three services, the sample knowledge base, five questions, their cited passages; then all is gone."""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from cli import ingest
from cli.addresses import is_running, read_addresses
from cli.errors import CommandFailed
from cli.render import make_console, print_answer
from evaluation.answers import exact_match
from rag_client import RagClient, RagError

_QUESTIONS = (
    "What is the capital of France?",
    "Who won the World Series in 2020?",
    "Who discovered the planet Uranus?",
    "Which metal has the highest melting point?",
    "What is the capital of Kazakhstan?",
)
_MAX_CITATIONS = 2
_START_SECONDS, _STOP_SECONDS = 300.0, 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--examples", type=Path, default=Path("examples"), help="of the source tree (%(default)s)")
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="generator checkpoint (default: the one shipped)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the demonstration; 1 when an answer is wrong."""
    knowledge_base, golds = arguments.examples / "sample_kb", _read_golds(arguments.examples)
    console = make_console()
    with tempfile.TemporaryDirectory(prefix="rag-demo-") as folder, _services(Path(folder), arguments.model) as address:
        parser = argparse.ArgumentParser()
        ingest.add_arguments(parser)
        if ingest.run(parser.parse_args([str(knowledge_base), "--address", address])):
            raise CommandFailed("the sample knowledge base could not be ingested as a whole")
        with RagClient(address) as client:
            try:
                num_right = sum(_ask(client, question, golds[question], console) for question in _QUESTIONS)
            except RagError as error:
                raise CommandFailed(error.message) from error
    console.print(Rule())
    console.print(f"{num_right} of {len(_QUESTIONS)} answers are right; all services have stopped")
    return 0 if num_right == len(_QUESTIONS) else 1


def _ask(client: RagClient, question: str, golds: list[str], console: Console) -> bool:
    answer = client.answer(question)
    is_right = bool(exact_match(answer.text, golds))
    console.print(Rule(question, align="left"))
    print_answer(answer, console, max_citations=_MAX_CITATIONS)
    if not is_right:
        console.print(f"[red]wrong[/]: expected {' or '.join(golds)}")
    return is_right


@contextmanager
def _services(data_dir: Path, model: str | None) -> Iterator[str]:
    """Runs `rag up` on free ports; gives the gateway's address once all is ready."""
    argv = [sys.executable, "-m", "cli", "up", "--port=0", "--quiet", f"--data-dir={data_dir}"]
    process = subprocess.Popen(argv + ([f"--model={model}"] if model else []), start_new_session=True)
    try:
        yield _wait_until_ready(process, data_dir)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], data_dir: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandFailed("the services did not start")  # `rag up` has said why.
        if is_running(data_dir):
            return read_addresses(data_dir)["gateway"]
        time.sleep(0.1)
    raise CommandFailed(f"the services were not ready after {_START_SECONDS:g} seconds")


def _read_golds(examples: Path) -> dict[str, list[str]]:
    try:
        lines = (examples / "sample_questions" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CommandFailed(
            f"{error.filename}: {error.strerror}: run it in the source tree, or give --examples"
        ) from error
    return {row["question"]: row["answers"] for row in map(json.loads, lines)}
