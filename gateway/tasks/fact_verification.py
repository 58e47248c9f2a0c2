"""Which label fits a claim best, given the passages found for it."""

from gateway.answers import Made
from gateway.run import Run
from gateway.stages import Question
from gateway.tasks.asking import in_words_of
from gateway.tasks.question_answering import find
from serving.errors import FailedPrecondition


async def make(question: Question, run: Run) -> Made:
    """Retrieves for the claim and scores each label under the marginal model.

    Raises:
        FailedPrecondition: Neither the question nor the checkpoint names labels.
    """
    checkpoint = await run.checkpoint()
    prompt = checkpoint.prompts.get(question.task)
    labels = question.task_options.labels or (prompt.labels if prompt is not None else ())
    if not labels:
        raise FailedPrecondition(
            "options.labels is empty, and the generator's checkpoint names no labels for fact_verification",
            field="options.labels",
            reason="NO_LABELS",
        )
    found = await find(question, run)
    if question.needs_passages:
        run.tell(found)
        if not found.passages:
            return Made(found)
    return Made(found, await run.choose(in_words_of(checkpoint, question), found, labels))
