import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Rag = Callable[..., Awaitable[Any]]


@pytest.fixture
async def questions(rag: Rag, served: Any, tmp_path: Path) -> Path:
    (tmp_path / "france.md").write_text("# France\n\n## Paris\n\nParis is the capital of France.\n")
    await rag("ingest", str(tmp_path / "france.md"), "--address", served.address)
    path = tmp_path / "questions.jsonl"
    rows = [
        {"id": "1", "question": "Which capital?", "answers": ["Paris"], "source": "france.md", "section": "Paris"},
        {"id": "2", "question": "What is of note?", "answers": ["London"]},
        {"id": "3", "question": "Zzz?", "answers": []},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def test_answers_and_retrieval_are_measured(rag: Rag, served: Any, questions: Path) -> None:
    finished = await rag("evaluate", str(questions), "--json", "--address", served.address)
    assert finished.code == 0, finished.err
    report = json.loads(finished.out)
    assert report["counts"]["questions"] == 3
    assert report["counts"]["unanswerable_abstained"] == 1
    assert report["metrics"]["exact_match"]["value"] == 0.5
    assert (questions.parent / "rag-results" / "questions.jsonl").exists()


async def test_the_report_is_written_where_asked_and_a_second_run_asks_nothing_again(
    rag: Rag, served: Any, questions: Path
) -> None:
    arguments = ("evaluate", str(questions), "--report", "report.json", "--address", served.address)
    assert (await rag(*arguments)).code == 0
    num_asked = len(served.gateway.requests)
    assert (await rag(*arguments)).code == 0
    assert len(served.gateway.requests) == num_asked
    assert json.loads((questions.parent / "report.json").read_text())["counts"]["errors"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "rag: nowhere.jsonl: No such file or directory\n"),
        (["france.md"], "rag: france.md, line 1: not a question"),
        (["questions.jsonl", "--collection", "nope"], "rag: no collection 'nope'; there are: default ("),
    ],
)
async def test_what_cannot_be_evaluated_is_told_in_one_line(
    rag: Rag, served: Any, questions: Path, arguments: list[str], message: str
) -> None:
    finished = await rag("evaluate", *arguments, "--address", served.address)
    assert finished.code == 1
    assert finished.err.startswith(message)


async def test_training_gets_every_argument_after_the_model(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("cli.train.import_module", lambda name: SimpleNamespace(main=given.append))
    assert (await rag("train", "generator", "--out", "folder", "--help")).code == 0
    assert given == [["--out", "folder", "--help"]]
    assert (await rag("train", "retriever")).code == 2
