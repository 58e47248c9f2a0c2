import pytest

from generator_service.convert import tasks as to_wire
from generator_service.task_prompts import TaskPrompt, task_prompts


def test_a_checkpoints_tasks_are_read_with_their_labels():
    config = {
        "rag_tasks": {
            "fact_verification": {"template": "verify: {question}", "labels": ["supported", "refuted"]},
            "query_rewriting": {"template": "rewrite: {history} ||| {question}"},
            "document_generation": {"template": "{section}: {question}"},
        }
    }
    assert task_prompts(config) == (
        TaskPrompt("fact_verification", "verify: {question}", ("supported", "refuted")),
        TaskPrompt("query_rewriting", "rewrite: {history} ||| {question}"),
        TaskPrompt("document_generation", "{section}: {question}"),
    )
    assert task_prompts({}) == ()


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ([], "rag_tasks is not an object"),
        ({"juggling": {"template": "{question}"}}, "rag_tasks.juggling: no such task"),
        ({"question_answering": {"template": "{question}"}}, "no such task"),
        ({"summarization": "summarize"}, "rag_tasks.summarization must be"),
        ({"summarization": {"template": "{question}", "lables": []}}, "must be"),
        ({"summarization": {"template": "summarize:"}}, "lacks {question}"),
        ({"query_rewriting": {"template": "{question}"}}, "lacks {history}"),
        ({"summarization": {"template": "{history} {question}"}}, "{history}, which nothing replaces"),
        ({"summarization": {"template": "{question}", "labels": ["a", "b"]}}, "only fact_verification has labels"),
        ({"fact_verification": {"template": "{question}", "labels": ["a"]}}, "labels must be 2 to 64"),
        ({"fact_verification": {"template": "{question}", "labels": ["a", "a"]}}, "labels must be 2 to 64"),
        ({"fact_verification": {"template": "{question}", "labels": "ab"}}, "labels must be 2 to 64"),
    ],
)
def test_what_is_wrong_with_a_checkpoints_tasks_is_told(tasks, told):
    with pytest.raises(ValueError, match=r"^rag_tasks") as caught:
        task_prompts({"rag_tasks": tasks})
    assert told in str(caught.value)


def test_tasks_are_told_on_the_wire():
    (told,) = to_wire([TaskPrompt("fact_verification", "verify: {question}", ("yes", "no"))])
    assert (told.task, told.template, list(told.labels)) == ("fact_verification", "verify: {question}", ["yes", "no"])
