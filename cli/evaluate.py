"""`rag evaluate`: how good the answers and the retrieval of a system are."""

import argparse
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from cli.asking import add_decoding_arguments, add_retrieval_arguments, answer_options
from cli.errors import CommandFailed
from cli.reporting import add_report_arguments, check_report_arguments, report_on, told_in_one_line
from cli.running import running_services
from cli.session import connected, gateway_address
from cli.tasks import add_dialogue_arguments, with_dialogue_options
from evaluation.datasets import check_tags, read_questions
from evaluation.results import Run
from evaluation.run import EvaluationSettings, evaluate
from rag_client import AnswerOptions, Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("questions", type=Path, metavar="QUESTIONS", help=".jsonl with question, answers, gold passage")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="kept here and continued from here (default: rag-results/NAME)"
    )
    add_report_arguments(parser)
    parser.add_argument("--depth", type=_count, default=20, metavar="K", help="recall@k up to this k (%(default)s)")
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N questions")
    parser.add_argument("--concurrency", type=_count, default=4, metavar="N", help="questions at once (%(default)s)")
    parser.add_argument("--up", action="store_true", help="start services on --data-dir for this run, then stop them")
    parser.add_argument("--checkpoint", metavar="NAME_OR_PATH", help="generator, with --up (default: the one shipped)")
    add_decoding_arguments(parser)
    add_retrieval_arguments(parser)
    tasks = parser.add_argument_group("tasks", "what the answers are for (docs/tasks.md)")
    tasks.add_argument(
        "--task",
        choices=[task.value.replace("_", "-") for task in Task],
        help="(default: question-answering; for questions with a history, dialogue)",
    )
    tasks.add_argument(
        "--label", action="append", metavar="TEXT", help="fact-verification: repeat it (default: the generator's)"
    )
    add_dialogue_arguments(tasks)
    parser.epilog = "`rag evaluate compare FIRST SECOND` compares two runs; `rag evaluate report FILE` reports again."


def run(arguments: argparse.Namespace) -> int:
    """Asks what has not been asked yet, and reports; 1 when a question could not be answered for an error."""
    check_report_arguments(arguments)
    if arguments.up and arguments.address:
        raise CommandFailed("--up starts services of its own: leave out --address")
    if arguments.checkpoint and not arguments.up:
        raise CommandFailed("--checkpoint is for the services that --up starts")
    own = running_services(arguments.data_dir, model=arguments.checkpoint) if arguments.up else nullcontext()
    with told_in_one_line():
        if arguments.slice_by:
            check_tags(read_questions(arguments.questions)[: arguments.limit], arguments.slice_by)
        with own:
            results = _ask(arguments)
        return report_on(results, arguments)


def _ask(arguments: argparse.Namespace) -> Run:
    name = arguments.questions.name.removesuffix(".gz").removesuffix(".jsonl")
    settings = EvaluationSettings(
        questions=arguments.questions,
        results=arguments.results or Path("rag-results", f"{name}.jsonl"),
        target=gateway_address(arguments),
        options=_options(arguments),
        depth=arguments.depth,
        concurrency=arguments.concurrency,
        limit=arguments.limit,
        timeout=arguments.timeout,
    )
    with connected(arguments):  # Its refusals are told in one line.
        try:
            return evaluate(settings, Console(stderr=True))
        except KeyboardInterrupt as interrupt:
            raise CommandFailed(f"interrupted: the same command goes on from {settings.results}") from interrupt


def _options(arguments: argparse.Namespace) -> AnswerOptions:
    options = with_dialogue_options(answer_options(arguments), arguments)
    if arguments.task is not None:
        options["task"] = arguments.task.replace("-", "_")
    if arguments.label is not None:
        options["labels"] = arguments.label
    return options


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count
