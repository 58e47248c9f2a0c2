"""What is killed is named, what was acknowledged survives, what was accepted is answered."""

import asyncio
import random
import signal
import threading
import time

import pytest

from rag_client import AsyncRagClient, Passage
from rag_client.errors import FailedPrecondition, NotReady, RagError


def test_a_killed_retriever_is_unavailable_by_name_and_comes_back(system):
    with system.client() as client:
        assert client.answer("What is the capital of France?").text == "Paris"
        system.retriever.kill()
        with pytest.raises(NotReady, match=f"retriever at {system.retriever.address}"):
            client.answer("What is the capital of France?")
        system.retriever.start()
        system.retriever.wait_ready()
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = client.answer("What is the capital of Kenya?")
                break
            except NotReady:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert answer.is_answered
        assert answer.citations[0].passage.source == "Kenya.md"


def test_a_retriever_killed_during_an_ask_ends_it_as_unavailable(system):
    outcomes: list[str] = []

    def ask() -> None:
        with system.client() as client:
            while not outcomes:
                try:
                    client.answer("What is the capital of France?")
                except RagError as error:
                    outcomes.append(f"{type(error).__name__}: {error.message}")

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(1.0)
    system.retriever.kill()
    asking.join(60)
    assert len(outcomes) == 1
    assert outcomes[0].startswith(f"NotReady: retriever at {system.retriever.address}")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_9_under_writes_loses_nothing_acknowledged(system, seed):
    rng = random.Random(seed)
    acknowledged: dict[str, str] = {}
    writing = threading.Event()

    def write() -> None:
        with system.client() as client:
            for number in range(10_000):
                text = f"Passage {number} of writer {seed} says {rng.random()}."
                identity = f"p{number % 40}"  # Most writes replace an earlier text.
                try:
                    result = client.upsert([Passage(identity, text, source="writer")])
                except RagError:
                    return
                if result.num_inserted + result.num_updated == 1:
                    acknowledged[identity] = text
                if number == 3:
                    writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert writing.wait(60)
    time.sleep(rng.uniform(0.1, 1.5))
    system.retriever.kill()
    writer.join(60)
    system.retriever.start()
    system.retriever.wait_ready()
    with system.client() as client:
        deadline = time.monotonic() + 30
        while not client.is_ready():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        stored = {passage.id: passage.text for passage in client.get_passages(sorted(acknowledged))}
        lost = {
            identity: text
            for identity, text in acknowledged.items()
            # The last write may have been durable before its acknowledgement could be sent.
            if stored.get(identity) != text and not _is_later(stored.get(identity, ""), text)
        }
        found = client.retrieve(next(iter(acknowledged.values())), top_k=1)
    assert acknowledged
    assert lost == {}
    assert found.passages[0].passage.id in acknowledged


def _is_later(stored: str, acknowledged: str) -> bool:
    return bool(stored) and int(stored.split()[1]) > int(acknowledged.split()[1])


def write_files(folder, count):
    folder.mkdir()
    for number in range(count):
        sentences = (f"Town {number}-{n} was founded in {1000 + number * 10 + n} by mayor {n}." for n in range(60))
        (folder / f"town{number:03}.txt").write_text(" ".join(sentences))


def test_ingest_survives_kill_9_of_the_server_and_of_itself(system, tmp_path):
    write_files(tmp_path / "towns", 40)
    ingest = ("ingest", str(tmp_path / "towns"), "--collection", "towns")
    first = system.rag(*ingest)
    _wait_for_passages(system, "towns", 30)
    first.kill()  # The command itself dies.
    first.communicate()
    second = system.rag(*ingest)
    _wait_for_passages(system, "towns", 90)
    system.retriever.kill()  # Now the server, while the command goes on.
    time.sleep(0.5)
    system.retriever.start()
    _, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    with system.client() as client:
        sources = list(client.list_sources(collection="towns"))
        once = client.describe_collection("towns").num_passages
    assert len(sources) == 40
    third = system.rag(*ingest)
    told, errors = third.communicate(timeout=120)
    assert third.returncode == 0, errors
    assert "0 new, 0 changed, 40 unchanged" in told
    with system.client() as client:
        assert client.describe_collection("towns").num_passages == once
        found = client.retrieve("Which mayor founded Town 39-59?", collection="towns", top_k=1)
    assert "Town 39-59" in found.passages[0].passage.text


def _wait_for_passages(system, collection, count):
    deadline = time.monotonic() + 120
    with system.client() as client:
        while True:
            try:
                if client.describe_collection(collection).num_passages >= count:
                    return
            except RagError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.02)


async def ask_under_load(address, seconds, act):
    """Sixteen callers for a while; `act` in the middle. Returns what each call came to."""
    outcomes: list[str] = []
    stop = asyncio.Event()

    async def call(client) -> None:
        while not stop.is_set():
            try:
                answer = await client.answer("What is the capital of Japan?", num_beams=1)
                outcomes.append(answer.text)
            except RagError as error:
                outcomes.append(f"{type(error).__name__}: {error.message}")

    async with AsyncRagClient(address, timeout=60) as client:
        callers = [asyncio.create_task(call(client)) for _ in range(16)]
        await asyncio.sleep(seconds / 2)
        act()
        await asyncio.sleep(seconds / 2)
        stop.set()
        await asyncio.gather(*callers)
    return outcomes


@pytest.mark.num_generators(2)
async def test_stopping_one_of_two_generators_under_load_fails_no_call(system):
    outcomes = await ask_under_load(system.gateway.address, 6, lambda: system.generators[0].signal(signal.SIGTERM))
    assert len(outcomes) > 16
    assert set(outcomes) == {"Tokyo"}
    assert await asyncio.to_thread(system.generators[0].process.wait, 30) == 0


async def test_sigterm_of_the_gateway_under_load_answers_every_accepted_call(system):
    async with AsyncRagClient(system.gateway.address, timeout=60) as client:
        await client.answer("What is the capital of Peru?")
        calls = [asyncio.create_task(client.answer("What is the capital of Peru?")) for _ in range(24)]
        await asyncio.sleep(0.1)
        system.gateway.signal(signal.SIGTERM)
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(answer, "text", answer) for answer in answers] == ["Lima"] * 24
    assert await asyncio.to_thread(system.gateway.process.wait, 60) == 0


def test_an_index_of_another_encoder_is_refused_by_name(system, tiny_encoder):
    system.retriever.kill()
    system.retriever.start(f"--encoder={tiny_encoder}")
    system.retriever.wait_ready()
    with system.client() as client:
        deadline = time.monotonic() + 30
        while not client.is_ready():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(FailedPrecondition, match="encoder"):
            client.answer("What is the capital of France?")
