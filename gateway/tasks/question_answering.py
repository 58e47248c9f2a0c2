"""An answer from what is found for the question; and from what other tasks find."""

from gateway.answers import Made
from gateway.run import Run
from gateway.stages import Question, Retrieval


async def make(question: Question, run: Run) -> Made:
    """Retrieves, and generates from that."""
    return await answer_from(await find(question, run), question, run)


async def find(question: Question, run: Run) -> Retrieval:
    """What is found for the question; nothing for a closed book."""
    if not question.needs_passages:
        return Retrieval()
    (found,) = await run.retrieve(question, [question.text])
    return found


async def answer_from(found: Retrieval, question: Question, run: Run) -> Made:
    """Generates from passages; without any, only for a closed book."""
    if question.needs_passages:
        run.tell(found)
        if not found.passages:
            return Made(found)
    return Made(found, await run.generate(question, found))
