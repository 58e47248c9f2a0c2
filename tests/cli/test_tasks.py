"""`rag ask --task` and `rag chat`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.render import print_answer
from protos.rag.v1 import gateway_pb2
from rag_client.convert import answer
from tests.cli.conftest import Rag


@pytest.fixture
async def filled(rag: Rag, served: Any, tmp_path: Path) -> Any:
    (tmp_path / "france.md").write_text("# France\n\nParis is the capital of France.\n", encoding="utf-8")
    assert (await rag("ingest", "france.md", "--address", served.address)).code == 0
    return served


async def test_what_a_task_reads_reaches_the_gateway(rag: Rag, filled: Any, tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text('{"role": "user", "text": "Hello?"}\n', encoding="utf-8")
    address = ("--address", filled.address)
    assert (
        await rag("ask", "Which capital?", "--history", "turns.jsonl", "--turn-discount", "0.25", *address)
    ).code == 0
    request = filled.gateway.requests[-1]
    assert [turn.text for turn in request.history] == ["Hello?"]
    assert request.options.history.turn_discount == 0.25
    given = ("--task", "fact-verification", "--label", "yes", "--label", "no")
    assert (await rag("ask", "capital", *given, *address)).code == 0
    request = filled.gateway.requests[-1]
    assert (request.task, list(request.options.labels)) == (gateway_pb2.TASK_FACT_VERIFICATION, ["yes", "no"])
    await rag("ask", "--task", "summarization", "--source", "france.md", *address)
    request = filled.gateway.requests[-1]
    assert (request.question, request.options.summarization.source) == ("", "france.md")


@pytest.mark.parametrize(("content", "told"), [("nonsense", "line 1"), (None, "No such file")])
async def test_a_history_that_is_none_is_told_in_one_line(rag: Rag, tmp_path: Path, content: str, told: str) -> None:
    if content is not None:
        (tmp_path / "turns.jsonl").write_text(content, encoding="utf-8")
    finished = await rag("ask", "q", "--history", "turns.jsonl")
    assert finished.code == 1
    assert told in finished.err
    assert finished.err.count("\n") == 1


async def test_a_chat_sends_each_question_with_what_was_said_before(rag: Rag, filled: Any) -> None:
    finished = await rag("chat", "--address", filled.address, stdin="Which capital?\n\nzzz?\nof France?\n")
    assert finished.code == 0
    assert "Paris" in finished.out
    asked = [[request.question, *(turn.text for turn in request.history)] for request in filled.gateway.requests]
    assert asked == [
        ["Which capital?"],
        ["zzz?", "Which capital?", "Paris"],
        ["of France?", "Which capital?", "Paris", "zzz?"],
    ]
    assert {request.task for request in filled.gateway.requests} == {gateway_pb2.TASK_DIALOGUE}


async def test_a_chat_can_be_read_by_programs(rag: Rag, filled: Any) -> None:
    finished = await rag("chat", "--json", "--address", filled.address, stdin="Which capital?\n")
    assert json.loads(finished.out)["text"] == "Paris"


def printed(**fields: Any) -> str:
    console = Console(file=io.StringIO(), width=100)
    passage = {"id": "p", "title": "Dune", "source": "dune.md", "text": "Sand and worms."}
    cited = {"retrieved": {"passage": passage}, "prior": 0.5, "posterior": 1.0}
    given = gateway_pb2.AnswerResponse(answer={"citations": [cited], **fields})
    print_answer(answer(given), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_labels_items_and_a_rewritten_question_are_shown() -> None:
    label = {"label": "refuted", "probability": 0.75, "log_probability": -1.5}
    assert "0.750      -1.500  refuted" in printed(text="refuted", labels=[label])
    item = {"name": "dune.md", "probability": 0.5, "citations": [{"index": 0, "posterior": 1.0}]}
    shown = printed(text="dune.md", items=[item])
    assert "0.500  dune.md" in shown
    assert "Sand and worms." in shown
    assert "posterior" not in shown
    assert "understood as: Who wrote Dune?" in printed(text="Herbert", rewritten_question="Who wrote Dune?")
