"""A question in the words that the generator's checkpoint was taught for its task. Pure."""

from dataclasses import replace

from gateway.prompts import Checkpoint
from gateway.stages import Question

_LONG_ANSWER_TOKENS = 256  # Three or four sentences are about a hundred.


def in_words_of(checkpoint: Checkpoint, question: Question, *, section: str = "") -> Question:
    """The question as the checkpoint reads it; as it is, where the checkpoint has no words for the task."""
    prompt = checkpoint.prompts.get(question.task)
    if prompt is None:
        return question
    return replace(question, prompt=prompt.fill(question=question.text, section=section))


def at_length(checkpoint: Checkpoint, question: Question) -> Question:
    """The question with room for a longer answer, as far as the checkpoint decodes one."""
    return replace(question, max_new_tokens=min(_LONG_ANSWER_TOKENS, checkpoint.max_new_tokens))
