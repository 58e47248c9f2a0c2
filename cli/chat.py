"""`rag chat`: a dialogue in the terminal; each question is understood with those before it."""

import argparse
import sys

from cli.ask import ask
from cli.asking import add_decoding_arguments, add_retrieval_arguments, answer_options
from cli.render import make_console, print_answer, print_json
from cli.session import connected
from cli.tasks import add_dialogue_arguments, with_dialogue_options
from rag_client import Role, Task, Turn

_MAX_TURNS = 64  # What a gateway takes.
_SHOWN_CITATIONS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_dialogue_arguments(parser)
    add_decoding_arguments(parser)
    add_retrieval_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answers line by line until the input ends."""
    console = make_console()
    options = with_dialogue_options(answer_options(arguments), arguments)
    options["task"] = Task.DIALOGUE
    history: list[Turn] = []
    with connected(arguments) as client:
        while (question := _next_question()) is not None:
            options["history"] = history[-_MAX_TURNS:]
            answer = ask(client, question, options, console, streams=True)
            if arguments.json:
                print_json(answer)
            else:
                print_answer(answer, console, max_citations=_SHOWN_CITATIONS)
            history.append(Turn(Role.USER, question))
            if answer.text.strip():
                history.append(Turn(Role.ASSISTANT, answer.text))
    return 0


def _next_question() -> str | None:
    """The next line that is not blank; None at the end."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        if line:
            return line
