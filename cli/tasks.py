"""The options of tasks beyond plain questions."""

import argparse
import json
from pathlib import Path

from cli.errors import CommandFailed
from rag_client import AnswerOptions, DialogueMode, Task, Turn


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --task and what the tasks read; the server refuses what another one does."""
    group = parser.add_argument_group("tasks", "what the answer is for (docs/tasks.md)")
    group.add_argument(
        "--task",
        choices=[task.value.replace("_", "-") for task in Task],
        help="(default: question-answering; with --history, dialogue)",
    )
    group.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help='dialogue, recommendation: earlier turns, one {"role": "user", "text": "..."} a line',
    )
    add_dialogue_arguments(group)
    group.add_argument(
        "--label",
        action="append",
        metavar="TEXT",
        help="fact-verification: an answer to choose from; repeat it (default: the generator's)",
    )
    group.add_argument("--source", metavar="NAME", help="summarization: of this source, whole")
    group.add_argument("--max-sections", type=int, metavar="N", help="document-generation: 1 to 20 (5)")
    group.add_argument(
        "--liked-source", action="append", metavar="NAME", help="recommendation: a source liked; may be repeated"
    )
    group.add_argument("--item-field", metavar="NAME", help="recommendation: metadata field that names the item")
    group.add_argument(
        "--translation-field", metavar="NAME", help="translation: metadata field with a passage's translation"
    )


def add_dialogue_arguments(group: argparse._ActionsContainer) -> None:
    """Adds how a dialogue uses its history."""
    group.add_argument(
        "--dialogue-mode",
        choices=[mode.value.replace("_", "-") for mode in DialogueMode],
        help="passages of several turns, or the question rewritten (default: what the generator was taught)",
    )
    group.add_argument(
        "--turn-discount", type=float, metavar="W", help="what each turn weighs beside the next, in (0, 1] (0.5)"
    )
    group.add_argument("--num-turns", type=int, metavar="N", help="earlier turns of yours that count (3)")


def with_task_options(options: AnswerOptions, arguments: argparse.Namespace) -> AnswerOptions:
    """The options with what was given of the task's."""
    options = with_dialogue_options(options, arguments)
    if arguments.task is not None:
        options["task"] = arguments.task.replace("-", "_")
    if arguments.history is not None:
        options["history"] = read_history(arguments.history)
    if arguments.label is not None:
        options["labels"] = arguments.label
    if arguments.source is not None:
        options["source"] = arguments.source
    if arguments.max_sections is not None:
        options["max_sections"] = arguments.max_sections
    if arguments.liked_source is not None:
        options["liked_sources"] = arguments.liked_source
    if arguments.item_field is not None:
        options["item_field"] = arguments.item_field
    if arguments.translation_field is not None:
        options["translation_field"] = arguments.translation_field
    return options


def with_dialogue_options(options: AnswerOptions, arguments: argparse.Namespace) -> AnswerOptions:
    """The options with what was given of the dialogue's."""
    options = options.copy()
    if arguments.dialogue_mode is not None:
        options["dialogue_mode"] = arguments.dialogue_mode.replace("-", "_")
    if arguments.turn_discount is not None:
        options["turn_discount"] = arguments.turn_discount
    if arguments.num_turns is not None:
        options["num_turns"] = arguments.num_turns
    return options


def read_history(path: Path) -> list[Turn]:
    """The turns of a file.

    Raises:
        CommandFailed: It cannot be read, or a line is no turn.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"--history {path}: {getattr(error, 'strerror', None) or error}") from error
    turns = []
    for number, line in enumerate(lines, start=1):
        try:
            turn = json.loads(line)
            turns.append(Turn(str(turn["role"]), str(turn["text"])))
        except (ValueError, KeyError, TypeError) as error:
            told = f'--history {path}, line {number}: not {{"role": "user" or "assistant", "text": "..."}}'
            raise CommandFailed(told) from error
    return turns
