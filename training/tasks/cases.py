"""What a task asks of the generator: a prompted question, a passage, the text to generate."""

from dataclasses import dataclass

from gateway.prompts import Checkpoint, TaskPrompt, Turn, dialogue_text

VERIFICATION, SUMMARIZATION, REWRITING = "fact_verification", "summarization", "query_rewriting"
DOCUMENT, ANSWERING = "document_generation", "question_answering"
SUPPORTED, REFUTED, NOT_ENOUGH = "supported", "refuted", "not enough information"
LABELS = (SUPPORTED, REFUTED, NOT_ENOUGH)
_READER, _MAX_HISTORY_BYTES = Checkpoint(max_input_tokens=512), 8_192

# Documents have no cases of their own: their sections are summaries.
PROMPTS = {
    VERIFICATION: TaskPrompt("verify: {question}", LABELS),
    SUMMARIZATION: TaskPrompt("summarize: {question}"),
    DOCUMENT: TaskPrompt("summarize: {question}: {section}"),
    REWRITING: TaskPrompt("rewrite: {history} ||| {question}"),
    ANSWERING: TaskPrompt("{question}"),
}


def rag_tasks() -> dict[str, dict[str, object]]:
    """What a checkpoint says of its tasks in ``config.json``; plain questions need no telling."""
    return {
        task: {"template": prompt.template} | ({"labels": list(prompt.labels)} if prompt.labels else {})
        for task, prompt in PROMPTS.items()
        if task != ANSWERING
    }


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to generate.

    Attributes:
        task: a key of ``PROMPTS``.
        question: what is asked, as a user says it.
        history: earlier turns, oldest first.
        title: of the passage; may be empty.
        text: the passage; empty where the task reads none.
        target: what is right.
    """

    task: str
    question: str
    target: str
    title: str = ""
    text: str = ""
    history: tuple[Turn, ...] = ()

    @property
    def prompt(self) -> str:
        """The question as the generator reads it."""
        history = dialogue_text(self.history, _READER, max_bytes=_MAX_HISTORY_BYTES)
        return PROMPTS[self.task].fill(question=self.question, history=history)
