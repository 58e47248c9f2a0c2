"""`rag evaluate`: how good the answers and the retrieval of a running system are."""

import argparse
from pathlib import Path

from rich.console import Console

from cli.asking import add_decoding_arguments, add_retrieval_arguments, answer_options
from cli.errors import CommandFailed
from cli.render import make_console
from cli.session import connected, gateway_address
from evaluation.report import print_report
from evaluation.run import EvaluationSettings, evaluate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("questions", type=Path, metavar="QUESTIONS", help=".jsonl with question, answers, gold passage")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="kept here and continued from here (default: rag-results/NAME)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the report here, as JSON")
    parser.add_argument("--depth", type=int, default=20, metavar="K", help="recall@k up to this k (%(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    parser.add_argument("--concurrency", type=int, default=4, metavar="N", help="questions at once (%(default)s)")
    add_decoding_arguments(parser)
    add_retrieval_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Asks what has not been asked yet, and reports; 1 when a question could not be answered for an error."""
    name = arguments.questions.name.removesuffix(".gz").removesuffix(".jsonl")
    settings = EvaluationSettings(
        questions=arguments.questions,
        results=arguments.results or Path("rag-results", f"{name}.jsonl"),
        target=gateway_address(arguments),
        options=answer_options(arguments),
        depth=arguments.depth,
        concurrency=arguments.concurrency,
        limit=arguments.limit,
        timeout=arguments.timeout,
    )
    with connected(arguments) as client:
        client.describe_collection(arguments.collection)  # Fails with a helpful line, where a run would count errors.
        try:
            settings.results.parent.mkdir(parents=True, exist_ok=True)
            report = evaluate(settings, Console(stderr=True))
            if arguments.report:
                arguments.report.write_text(report.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandFailed(f"{error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise CommandFailed(str(error)) from error
        except KeyboardInterrupt as interrupt:
            raise CommandFailed(f"interrupted: the same command goes on from {settings.results}") from interrupt
    if arguments.json:
        print(report.to_json())
    else:
        print_report(report, make_console())
    return 1 if report.counts["errors"] else 0
