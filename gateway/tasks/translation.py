"""A translation beside those found of similar texts."""

from dataclasses import replace

from gateway.answers import Made
from gateway.run import Run
from gateway.stages import Question
from gateway.tasks.asking import in_words_of
from gateway.tasks.question_answering import answer_from, find


async def make(question: Question, run: Run) -> Made:
    """Generates from the translations found; from the text alone where there is none."""
    checkpoint = await run.checkpoint()
    found = await find(question, run)
    asked = in_words_of(checkpoint, question)
    if question.needs_passages and not found.passages:
        run.tell(found)
        asked = replace(asked, needs_passages=False)
    return await answer_from(found, asked, run)
