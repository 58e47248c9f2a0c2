"""`rag demo`: three services, the sample knowledge base, five questions, their cited passages; then all is gone."""

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from cli import ingest
from cli.errors import CommandFailed
from cli.render import make_console, print_answer
from cli.running import running_services
from cli.up import MODEL_HELP
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--examples", type=Path, default=Path("examples"), help="of the source tree (%(default)s)")
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Runs the demonstration; 1 when an answer is wrong."""
    knowledge_base, golds = arguments.examples / "sample_kb", _read_golds(arguments.examples)
    console = make_console()
    with (
        tempfile.TemporaryDirectory(prefix="rag-demo-") as folder,
        running_services(Path(folder), model=arguments.model) as address,
    ):
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


def _read_golds(examples: Path) -> dict[str, list[str]]:
    try:
        lines = (examples / "sample_questions" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CommandFailed(
            f"{error.filename}: {error.strerror}: run it in the source tree, or give --examples"
        ) from error
    return {row["question"]: row["answers"] for row in map(json.loads, lines)}
