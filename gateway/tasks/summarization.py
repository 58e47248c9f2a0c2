"""A summary of what is found, or of one source."""

from dataclasses import replace

from gateway.answers import Made
from gateway.run import Run
from gateway.stages import Question, Retrieval
from gateway.tasks.asking import at_length, in_words_of
from gateway.tasks.question_answering import answer_from, find
from serving.errors import InvalidRequest

MAX_PASSAGES = 100  # What a generator reads at once.


async def make(question: Question, run: Run) -> Made:
    """Generates a longer text from the passages found for the question, or from all of a source."""
    checkpoint = await run.checkpoint()
    if question.task_options.source:
        found = await _all_of(question.task_options.source, question, run)
        topic = question.text.strip() or found.facts[0].title or question.task_options.source
        question = replace(question, text=topic)
    else:
        found = await find(question, run)
    return await answer_from(found, at_length(checkpoint, in_words_of(checkpoint, question)), run)


async def _all_of(source: str, question: Question, run: Run) -> Retrieval:
    (found,) = await run.sources(question, [source], max_passages=MAX_PASSAGES + 1)
    if len(found.passages) > MAX_PASSAGES:
        raise InvalidRequest(
            f"source {source!r} has more than {MAX_PASSAGES} passages, too many to summarise at once; a filter on "
            "source and top_k summarise those that fit a question",
            field="options.summarization.source",
            reason="TOO_MANY",
        )
    return found
