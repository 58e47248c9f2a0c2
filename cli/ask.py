"""`rag ask`: the answer as it comes, then the passages it rests on."""

import argparse
from contextlib import closing

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cli.asking import add_decoding_arguments, add_retrieval_arguments, answer_options, is_empty
from cli.errors import CommandFailed
from cli.render import make_console, print_answer, print_json
from cli.session import connected, empty_collection
from cli.tasks import add_task_arguments, with_task_options
from rag_client import (
    Answer,
    AnswerOptions,
    FinalAnswer,
    FinishReason,
    PassagesRetrieved,
    RagClient,
    StageEnded,
    TokenDelta,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("question", metavar="QUESTION", nargs="?", default="", help="or claim, topic, text, wish")
    add_decoding_arguments(parser)
    parser.add_argument("--no-stream", action="store_true", help="wait for the whole answer, found thoroughly")
    add_retrieval_arguments(parser)
    add_task_arguments(parser)
    parser.set_defaults(refuse=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Asks one question."""
    if not arguments.question and not arguments.source and arguments.task != "recommendation":
        arguments.refuse("QUESTION is missing; only a summary of a --source and recommendations need none")
    console = make_console()
    options = with_task_options(answer_options(arguments), arguments)
    with connected(arguments) as client:
        answer = ask(client, arguments.question, options, console, streams=not arguments.no_stream)
        if answer.finish_reason is FinishReason.NO_PASSAGES and is_empty(client, arguments.collection):
            raise empty_collection(arguments.collection)
    if arguments.json:
        print_json(answer)
    else:
        print_answer(answer, console)
    return 0


def ask(client: RagClient, question: str, options: AnswerOptions, console: Console, *, streams: bool) -> Answer:
    """The definitive answer. A terminal shows what comes before it, and forgets it: the last event replaces it.

    Raises:
        CommandFailed: The stream ended without an answer.
    """
    if not streams:
        return client.answer(question, **options)
    text = ""
    with (
        Live(console=console, transient=True, auto_refresh=False) as live,
        closing(client.stream(question, **options)) as events,  # type: ignore[type-var]
    ):
        for event in events:
            match event:
                case FinalAnswer():
                    return event.answer
                case PassagesRetrieved() if console.is_terminal:
                    live.update(Text(f"reading {len(event.passages)} passages", style="dim"), refresh=True)
                case StageEnded(_, section) if section and console.is_terminal:
                    live.update(Text(f"wrote {section}", style="dim"), refresh=True)
                case TokenDelta() if console.is_terminal:
                    text += event.text
                    live.update(Text(text, style="bold"), refresh=True)
    raise CommandFailed("the gateway ended its stream without an answer")
