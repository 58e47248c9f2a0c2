"""The last question of a dialogue: RAG-Turn, or the question written anew."""

import math
from collections.abc import Sequence
from dataclasses import replace

from gateway.answers import Made
from gateway.mixture import keep, mix
from gateway.prompts import QUERY_REWRITING, Checkpoint, TaskPrompt, Turn, dialogue_text, recent
from gateway.run import Run
from gateway.stages import Question, Retrieval
from gateway.tasks.question_answering import answer_from, find
from serving.errors import FailedPrecondition

_MAX_PROMPT_BYTES = 8192  # What the generator takes, question and template included.


async def make(question: Question, run: Run) -> Made:
    """Answers with the passages of several turns, or answers the rewritten question.

    Raises:
        FailedPrecondition: Rewriting is asked for of a generator that was not taught it.
    """
    checkpoint = await run.checkpoint()
    turns = recent(question.history, question.task_options.num_turns)
    if _rewrites(question, checkpoint) and turns:
        written = await run.rewrite(_fill(checkpoint.prompts[QUERY_REWRITING], question, turns, checkpoint))
        rewritten = written.strip() or question.text
        asked = replace(question, text=rewritten)
        made = await answer_from(await find(asked, run), asked, run)
        return replace(made, rewritten_question=rewritten)
    prompt = checkpoint.prompts.get(question.task)
    asked = question if prompt is None else replace(question, prompt=_fill(prompt, question, turns, checkpoint))
    found = await _find_for_turns(question, turns, run) if question.needs_passages else Retrieval()
    return await answer_from(found, asked, run)


async def _find_for_turns(question: Question, turns: Sequence[Turn], run: Run) -> Retrieval:
    """The most probable passages of the mixture over the question and the user's turns before it."""
    queries = [question.text, *(turn.text for turn in reversed(turns) if turn.role == "user")]
    found = await run.retrieve(question, queries)
    mixture = mix(found, [age * math.log(question.task_options.turn_discount) for age in range(len(queries))])
    top_k = max(question.task_options.top_k, *(len(each.passages) for each in found))
    return keep(mixture, range(min(top_k, len(mixture.passages))))


def _rewrites(question: Question, checkpoint: Checkpoint) -> bool:
    is_taught = QUERY_REWRITING in checkpoint.prompts
    if question.task_options.rewrites and not is_taught:
        raise FailedPrecondition(
            "options.history.mode is QUERY_REWRITING, and the generator's checkpoint has no template for "
            f"{QUERY_REWRITING}; RAG_TURN needs none",
            field="options.history.mode",
            reason="NO_TEMPLATE",
        )
    return is_taught if question.task_options.rewrites is None else question.task_options.rewrites


def _fill(prompt: TaskPrompt, question: Question, turns: Sequence[Turn], checkpoint: Checkpoint) -> str:
    """The prompt with as much of the latest turns as fits."""
    room = _MAX_PROMPT_BYTES - len(prompt.template.encode()) - len(question.text.encode())
    return prompt.fill(question=question.text, history=dialogue_text(turns, checkpoint, max_bytes=room))
