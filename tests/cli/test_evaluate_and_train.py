import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.addresses import remove_addresses, write_addresses
from protos.rag.v1 import gateway_pb2

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
    assert report["settings"]["system"]["num_passages"] == 1
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


async def test_a_report_is_made_again_without_a_gateway_as_one_html_file(
    rag: Rag, served: Any, questions: Path
) -> None:
    assert (await rag("evaluate", str(questions), "--results", "a.jsonl", "--address", served.address)).code == 0
    finished = await rag("evaluate", "report", "a.jsonl", "--report", "a.html", "--report", "a.json", "--json")
    assert finished.code == 0, finished.err
    assert json.loads(finished.out) == json.loads((questions.parent / "a.json").read_text())
    page = (questions.parent / "a.html").read_text()
    assert "What is of note?" in page
    assert "Paris is the capital of France." in page


async def test_a_task_is_asked_for_and_verified_claims_are_counted(rag: Rag, served: Any, questions: Path) -> None:
    row = {"id": "1", "question": "Paris is in France.", "label": "Paris", "source": "france.md"}
    (questions.parent / "claims.jsonl").write_text(json.dumps(row) + "\n")
    options = ("--task", "fact-verification", "--label", "Paris", "--label", "Rome", "--json")
    finished = await rag("evaluate", "claims.jsonl", *options, "--address", served.address)
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["metrics"]["accuracy"]["value"] == 1.0
    request = served.gateway.requests[-1]
    assert request.task == gateway_pb2.TASK_FACT_VERIFICATION
    assert request.options.labels == ["Paris", "Rome"]


async def test_a_question_is_asked_with_the_turns_before_it(rag: Rag, served: Any, questions: Path) -> None:
    turns = [{"role": "user", "text": "Which capital?"}, {"role": "assistant", "text": "Paris"}]
    row = {"id": "1", "question": "And its country?", "history": turns, "answers": ["Paris"]}
    (questions.parent / "turns.jsonl").write_text(json.dumps(row) + "\n")
    options = ("--dialogue-mode", "rag-turn", "--num-turns", "2", "--address", served.address)
    assert (await rag("evaluate", "turns.jsonl", *options)).code == 0
    request = served.gateway.requests[-1]
    assert [turn.text for turn in request.history] == ["Which capital?", "Paris"]
    assert request.options.history.num_turns == 2


async def test_two_runs_are_compared_and_those_over_other_questions_are_not(
    rag: Rag, served: Any, questions: Path
) -> None:
    common = ("--address", served.address)
    assert (await rag("evaluate", str(questions), "--results", "a.jsonl", *common)).code == 0
    silent = ("--min-confidence", "0.9", *common)
    assert (await rag("evaluate", str(questions), "--results", "b.jsonl", *silent)).code == 0
    assert (await rag("evaluate", str(questions), "--results", "c.jsonl", "--limit", "2", *common)).code == 0
    finished = await rag("evaluate", "compare", "a.jsonl", "b.jsonl", "--json")
    assert finished.code == 0, finished.err
    comparison = json.loads(finished.out)
    assert [each["id"] for each in comparison["lost"]] == ["1"]
    assert comparison["differences"]["exact_match"]["change"]["value"] == -0.5
    assert "lost: 1" in (await rag("evaluate", "compare", "a.jsonl", "b.jsonl")).out
    refused = await rag("evaluate", "compare", "a.jsonl", "c.jsonl")
    assert refused.code == 1
    assert "not over the same questions: 1 are in the first alone" in refused.err


async def test_services_of_its_own_are_asked_where_that_is_wanted(
    rag: Rag, served: Any, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Path, str | None]] = []

    @contextmanager
    def running_services(data_dir: Path, *, model: str | None) -> Iterator[str]:
        started.append((data_dir, model))
        write_addresses(data_dir, {"gateway": served.address})
        yield served.address
        remove_addresses(data_dir)

    monkeypatch.setattr("cli.evaluate.running_services", running_services)
    own = ("--up", "--checkpoint", "mine", "--data-dir", str(questions.parent))
    finished = await rag("evaluate", str(questions), *own)
    assert finished.code == 0, finished.err
    assert started == [(questions.parent, "mine")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--up"], "rag: --up starts services of its own"),
        (["--checkpoint", "x"], "rag: --checkpoint is for the services that --up starts"),
        (["--report", "x.pdf"], "rag: --report x.pdf: the name must end in .json or .html"),
        (["--slice-by", "color"], "rag: no question has a field 'color' to slice by; there are: source"),
    ],
)
async def test_options_that_cannot_be_followed_are_refused_before_anything_is_asked(
    rag: Rag, served: Any, questions: Path, arguments: list[str], message: str
) -> None:
    finished = await rag("evaluate", "questions.jsonl", *arguments, "--address", served.address)
    assert finished.code == 1
    assert finished.err.startswith(message)
    assert served.gateway.requests == []


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
    assert (await rag("train", "nothing")).code == 2
