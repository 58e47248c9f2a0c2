"""The command with three real services: what a user does on the first day, and what may go wrong then."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.addresses import read_addresses
from rag_client import RagClient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for child processes")

ROOT = Path(__file__).parents[2]
SAMPLE_KB = ROOT / "examples" / "sample_kb"
PATIENCE_SECONDS = 240.0


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cli", *map(str, arguments)]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@dataclass
class Up:
    """A running `rag up`."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    output: Path

    @property
    def children(self) -> dict[str, int]:
        """Process ids by module name."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {Path(f"/proc/{pid}/cmdline").read_text().split("\0")[3]: int(pid) for pid in pids}

    @property
    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        return (self.data_dir / "services.json").exists()

    def rag(self, *arguments: object, code: int = 0) -> str:
        finished = subprocess.run(
            command(*arguments, "--data-dir", self.data_dir), cwd=ROOT, capture_output=True, text=True, timeout=240
        )
        assert finished.returncode == code, finished.stderr + finished.stdout
        return finished.stdout


def start(folder: Path) -> Up:
    output = folder / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command("up", "--port", "0", "--quiet", "--data-dir", folder / "data"), cwd=ROOT, stderr=stream
        )
    return Up(process, folder / "data", output)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """A `rag up` of this test alone, which the test may break."""
    running = start(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Ready services with the sample knowledge base; stopped by Ctrl-C, after which nothing may be left."""
    running = start(tmp_path_factory.mktemp("system"))
    try:
        until(lambda: running.is_ready, "the services")
        running.rag("ingest", SAMPLE_KB)
        yield running
        children = running.children
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        assert len(children) == 3
        assert not any(map(is_running, children.values()))
        assert not (running.data_dir / "services.json").exists()
    finally:
        running.process.kill()
        running.process.wait()


def test_a_question_is_answered_with_its_passages(system: Up) -> None:
    answer = json.loads(system.rag("ask", "What is the capital of France?", "--no-stream", "--json"))
    assert answer["text"] == "Paris"
    best = answer["citations"][0]
    assert best["retrieved"]["passage"]["source"] == "capitals_western_europe.md"
    assert sum(citation["posterior"] for citation in answer["citations"]) == pytest.approx(1)


def test_candidates_are_ranked_and_hits_reread_by_the_real_services(system: Up) -> None:
    question = ("ask", "What is the capital of France?", "--json")
    ranked = json.loads(system.rag(*question, "--candidates", 3))
    assert ranked["text"] == ranked["hypotheses"][0]["text"] == "Paris"
    scores = [each["ranking_score"] for each in ranked["hypotheses"]]
    assert len(scores) > 1
    assert scores == sorted(scores, reverse=True)
    assert sum(citation["posterior"] for citation in ranked["citations"]) == pytest.approx(1.0)
    reread = json.loads(system.rag(*question, "--rerank", "question-likelihood", "--top-k", 2))
    hits = [citation["retrieved"] for citation in reread["citations"]]
    assert sorted(hit["rank"] for hit in hits) == [1, 2]
    assert all(hit["rerank_score"] < 0 for hit in hits)


def test_passages_bring_their_neighbors_and_do_not_repeat_each_other(system: Up) -> None:
    search = ("search", "capital cities of Europe", "--json", "--top-k", 3)
    plain, wide = (json.loads(system.rag(*search, *more))["passages"] for more in ((), ("--neighbors", 1)))
    assert not any(hit["neighbors"] for hit in plain)
    assert [hit["passage"]["id"] for hit in wide] == [hit["passage"]["id"] for hit in plain]
    assert all(1 <= len(hit["neighbors"]) <= 2 for hit in wide)
    assert {one["source"] for one in wide[0]["neighbors"]} == {wide[0]["passage"]["source"]}
    assert "beside it" in system.rag("search", "capital cities of Europe", "--neighbors", 1)
    answer = json.loads(
        system.rag("ask", "What is the capital of France?", "--json", "--neighbors", 1, "--diversity", 0.5)
    )
    assert answer["text"] == "Paris"
    assert answer["citations"][0]["retrieved"]["neighbors"]


def test_a_collection_is_tuned_to_questions_and_keeps_what_helped(system: Up, tmp_path: Path) -> None:
    (tmp_path / "facts").mkdir()
    for i in range(24):
        (tmp_path / "facts" / f"river{i}.md").write_text(f"The river number {i} is {7 * i + 3} kilometres long.")
    questions = [{"id": i, "question": f"How long is river {i}?", "source": f"river{i}.md"} for i in range(24)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    system.rag("ingest", tmp_path / "facts", "-c", "tuned")
    tune = ("tune", "tuned", "--questions", tmp_path / "questions.jsonl")
    before = json.loads(system.rag("collections", "describe", "tuned", "--json"))["settings"]
    assert "nothing was changed" in system.rag(*tune, "--dry-run")
    assert json.loads(system.rag("collections", "describe", "tuned", "--json"))["settings"] == before
    fitted = json.loads(system.rag(*tune, "--json"))
    after = json.loads(system.rag("collections", "describe", "tuned", "--json"))["settings"]
    assert fitted["before"]["temperature"] == before["temperature"]
    assert after["temperature"] == fitted["after"]["temperature"] != before["temperature"]
    assert after["fusion"]["lexical_weight"] == fitted["after"]["lexical_weight"]


def test_a_streamed_answer_ends_with_a_table_of_citations(system: Up) -> None:
    shown = system.rag("ask", "What is the capital of France?")
    assert "posterior" in shown
    assert "capitals_western_europe.md" in shown


def test_search_finds_the_passage(system: Up) -> None:
    assert "2020 World Series" in system.rag("search", "Who won the World Series in 2020?")


def test_status_shows_three_serving_services(system: Up) -> None:
    status = json.loads(system.rag("status", "--json"))
    assert status["ready"] == {"gateway": True, "retriever": True, "generator": True}


def test_a_second_ingest_changes_nothing(system: Up) -> None:
    assert "0 new, 0 changed, 27 unchanged, 0 vanished" in system.rag("ingest", SAMPLE_KB)


def test_an_ingest_that_was_killed_is_completed_by_the_next(system: Up, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": str(n), "text": f"Number {n} is a number."}) + "\n" for n in range(1200)))
    arguments = ("ingest", rows, "--collection", "numbers")
    with RagClient(read_addresses(system.data_dir)["gateway"]) as client:
        client.create_collection("numbers")
        killed = subprocess.Popen(command(*arguments, "--data-dir", system.data_dir), cwd=ROOT)
        until(lambda: client.describe_collection("numbers").num_passages > 0, "the first passages")
        killed.kill()
        killed.wait()
        system.rag(*arguments)
        assert client.describe_collection("numbers").num_passages == 1200
        assert [source.name for source in client.list_sources(collection="numbers")] == ["rows.jsonl"]
    assert "0 changed, 1 unchanged" in system.rag(*arguments)


def test_a_second_up_on_the_same_data_is_refused(system: Up) -> None:
    finished = subprocess.run(
        command("up", "--port", "0", "--data-dir", system.data_dir), cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 1
    assert finished.stderr == f"rag: another `rag up` runs on the data in {system.data_dir}\n"


def test_ctrl_c_before_all_is_ready_leaves_no_child(up: Up) -> None:
    until(lambda: len(up.children) == 3, "the children")
    children = up.children.values()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert not any(map(is_running, children))


def test_the_death_of_a_service_ends_all_and_is_told(up: Up) -> None:
    until(lambda: {"gateway", "retriever_service", "generator_service"} == set(up.children), "the children")
    children = up.children
    os.kill(children["generator_service"], signal.SIGKILL)
    assert up.process.wait(60) == 1
    assert not any(map(is_running, children.values()))
    assert "rag: the generator ended by signal SIGKILL; its last lines:" in up.output.read_text()


@pytest.mark.slow
def test_an_ingest_during_which_the_retriever_was_killed_is_completed_after_a_restart(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": str(n), "text": f"Number {n} is a number."}) + "\n" for n in range(1200)))
    first = start(tmp_path)
    try:
        until(lambda: first.is_ready, "the services")
        first.rag("collections", "create", "numbers")
        arguments = command("ingest", rows, "--collection", "numbers", "--data-dir", first.data_dir)
        ingest = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE)
        with RagClient(read_addresses(first.data_dir)["gateway"]) as client:
            until(lambda: client.describe_collection("numbers").num_passages > 0, "the first passages")
            os.kill(first.children["retriever_service"], signal.SIGKILL)
        assert first.process.wait(60) == 1
        ingest.kill()  # It would wait two minutes for the old address.
        ingest.wait()
    finally:
        first.process.kill()
        first.process.wait()
    second = start(tmp_path)
    try:
        until(lambda: second.is_ready, "the services")
        second.rag("ingest", rows, "--collection", "numbers")
        [numbers] = json.loads(second.rag("collections", "list", "--json"))
        assert (numbers["num_passages"], numbers["num_sources"]) == (1200, 1)
    finally:
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(60) == 0
