"""What a checkpoint was taught beyond plain questions: ``rag_tasks`` of its ``config.json``, beside ``rag_prompt``.

A template stands in the question's place; whoever asks fills it in. Training and serving both read it here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_REQUIRED = {
    "dialogue": {"question"},
    "summarization": {"question"},
    "document_generation": {"question"},
    "translation": {"question"},
    "fact_verification": {"question"},
    "query_rewriting": {"question", "history"},
}
_OPTIONAL = {"dialogue": {"history"}, "document_generation": {"section"}}
_KEYS = {"template", "labels"}
_MIN_LABELS, _MAX_LABELS = 2, 64


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """How a checkpoint reads one task.

    Attributes:
        task: Its lower-case name in the contract, or "query_rewriting".
        template: With ``{question}``; dialogue and query_rewriting also have ``{history}``, document_generation
            ``{section}``.
        labels: Of fact_verification: the answers to choose from.
    """

    task: str
    template: str
    labels: tuple[str, ...] = ()


def task_prompts(config: Mapping[str, Any]) -> tuple[TaskPrompt, ...]:
    """Reads the ``rag_tasks`` entry of a checkpoint's config; none gives none.

    Raises:
        ValueError: It is not as described here.
    """
    tasks = config.get("rag_tasks", {})
    if not isinstance(tasks, Mapping):
        raise ValueError("rag_tasks is not an object of tasks")
    return tuple(_read(name, entry) for name, entry in tasks.items())


def _read(task: str, entry: Any) -> TaskPrompt:
    where = f"rag_tasks.{task}"
    if task not in _REQUIRED:
        raise ValueError(f"{where}: no such task; there are {', '.join(_REQUIRED)}")
    if not isinstance(entry, Mapping) or not isinstance(entry.get("template"), str) or entry.keys() - _KEYS:
        raise ValueError(f'{where} must be {{"template": "..."}}, for fact_verification with "labels": ["...", ...]')
    template, labels = entry["template"], entry.get("labels", ())
    placeholders = set(_PLACEHOLDER.findall(template))
    missing = _REQUIRED[task] - placeholders
    unknown = placeholders - _REQUIRED[task] - _OPTIONAL.get(task, set())
    if missing or unknown:
        problem = f"lacks {{{min(missing)}}}" if missing else f"has {{{min(unknown)}}}, which nothing replaces"
        raise ValueError(f"{where}.template {template!r} {problem}")
    if labels:
        _check_labels(task, labels)
    return TaskPrompt(task, template, tuple(labels))


def _check_labels(task: str, labels: Any) -> None:
    where = f"rag_tasks.{task}.labels"
    if task != "fact_verification":
        raise ValueError(f"{where}: only fact_verification has labels")
    is_list = isinstance(labels, list) and all(isinstance(label, str) and label.strip() for label in labels)
    if not is_list or not _MIN_LABELS <= len(set(labels)) == len(labels) <= _MAX_LABELS:
        raise ValueError(f"{where} must be {_MIN_LABELS} to {_MAX_LABELS} different texts that are not blank")
