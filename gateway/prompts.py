"""How the generator's checkpoint wants to be asked, and a dialogue as text. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

QUERY_REWRITING = "query_rewriting"  #: Beside the names of the tasks.

_PLACEHOLDER = re.compile(r"\{(question|history|section)\}")
_BYTES_PER_TOKEN = 3  # At least, for most texts; what is cut off for it is the oldest.


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said before."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """What is put in the question's place, and for FACT_VERIFICATION the answers to choose from."""

    template: str
    labels: Sequence[str] = ()

    def fill(self, *, question: str, history: str = "", section: str = "") -> str:
        """The template with its placeholders replaced; what is put in is not looked into."""
        values = {"question": question, "history": history, "section": section}
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.template)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a generator's checkpoint says of tasks.

    Attributes:
        digest: Names the checkpoint.
        prompts: By task.
        max_new_tokens: The longest answer that it decodes; 0 where it does not say.
        max_input_tokens: The longest input that it reads; 0 where it does not say.
    """

    digest: str = ""
    prompts: Mapping[str, TaskPrompt] = field(default_factory=dict)
    max_new_tokens: int = 0
    max_input_tokens: int = 0


def recent(history: Sequence[Turn], num_turns: int) -> Sequence[Turn]:
    """The history from the `num_turns`-th last turn of the user on."""
    starts = [index for index, turn in enumerate(history) if turn.role == "user"][-num_turns:] if num_turns else []
    return history[starts[0] :] if starts else ()


def dialogue_text(history: Sequence[Turn], checkpoint: Checkpoint, *, max_bytes: int) -> str:
    """The turns as one text, "user: … assistant: …"; the oldest are left out where they do not fit.

    Args:
        history: The oldest first.
        checkpoint: Reads the text, beside a question and perhaps a passage: it gets half of the input.
        max_bytes: What fits in any case.
    """
    if checkpoint.max_input_tokens:
        max_bytes = min(max_bytes, checkpoint.max_input_tokens * _BYTES_PER_TOKEN // 2)
    text = ""
    for turn in reversed(history):
        longer = f"{turn.role}: {turn.text} {text}".strip()
        if len(longer.encode()) > max_bytes:
            break
        text = longer
    return text
