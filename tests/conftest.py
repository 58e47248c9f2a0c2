"""The three services as real processes, shared by the tests of a session that only ask."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag_client import Passage, RagClient

ROOT = Path(__file__).parents[1]
READY_SECONDS, STOP_SECONDS = 240.0, 60.0
MODULES = {"retriever": "retriever_service", "generator": "generator_service", "gateway": "gateway"}
SAMPLE_FILES = ("capitals_western_europe.md", "world_series.md")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one service listens, as host:port."""

    address: str
    metrics_address: str


@dataclass(frozen=True, slots=True)
class RagSystem:
    """A running system."""

    gateway: Endpoint
    retriever: Endpoint
    generator: Endpoint
    folder: Path

    def client(self) -> RagClient:
        return RagClient(self.gateway.address, timeout=60)


@contextmanager
def running_service(module: str, flags: Sequence[str], log: Path) -> Iterator[Endpoint]:
    """One service as a process on free ports; ended with SIGTERM. Not necessarily ready yet."""
    port, metrics_port = free_ports(2)
    argv = [sys.executable, "-m", module, f"--port={port}", f"--metrics-port={metrics_port}", *flags]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        yield Endpoint(f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}")
        assert process.poll() is None, f"{module} died: {log.read_text()[-3000:]}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_system(folder: Path, flags: Mapping[str, Sequence[str]]) -> Iterator[RagSystem]:
    """The three services on free loopback ports, ready; data below `folder`, logs in it.

    Args:
        folder: Gets data and logs.
        flags: More flags by service name ("gateway", "retriever", "generator").
    """
    with ExitStack() as stack:

        def start(name: str, *own: str) -> Endpoint:
            argv = [*own, "--drain-seconds=0", *flags.get(name, ())]
            return stack.enter_context(running_service(MODULES[name], argv, folder / f"{name}.log"))

        retriever = start("retriever", f"--data-dir={folder / 'retriever'}")
        generator = start("generator")
        gateway = start(
            "gateway",
            f"--retriever={retriever.address}",
            f"--generator={generator.address}",
            f"--feedback-path={folder / 'feedback.jsonl'}",
            f"--backend-wait-seconds={READY_SECONDS:.0f}",
        )
        wait_ready(gateway.address, folder)
        yield RagSystem(gateway, retriever, generator, folder)


def wait_ready(address: str, folder: Path) -> None:
    """Returns when the gateway is, which waits for the other two."""
    deadline = time.monotonic() + READY_SECONDS
    with RagClient(address) as client:
        while not client.is_ready():
            logs = {log.name: log.read_text()[-2000:] for log in folder.glob("*.log")}
            assert not any("Traceback" in text or "configuration:" in text for text in logs.values()), logs
            assert time.monotonic() < deadline, logs
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports that are free now; nothing reserves them."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def sample_passages() -> list[Passage]:
    """The sections of two files of the sample knowledge base."""
    passages = []
    for name in SAMPLE_FILES:
        title, *sections = (ROOT / "examples/sample_kb" / name).read_text(encoding="utf-8").split("\n## ")
        for number, section in enumerate(sections):
            heading, text = section.split("\n", 1)
            passages.append(Passage(f"{name}#{number}", text.strip(), f"{title.lstrip('# ').strip()}: {heading}", name))
    return passages


@pytest.fixture(scope="session")
def rag_system(tmp_path_factory):
    """A system for tests that only ask or write to collections of their own; "default" holds `sample_passages`."""
    with running_system(tmp_path_factory.mktemp("rag-system"), {}) as system:
        with system.client() as client:
            client.upsert(sample_passages())
        yield system


@pytest.fixture(scope="session")
def start_rag_system():
    """`running_system`, for tests that need flags or a system of their own."""
    return running_system


@pytest.fixture(scope="session")
def start_service():
    """`running_service`, for one more process."""
    return running_service


@pytest.fixture(scope="session")
def free_port():
    """Finds a port that is free now; nothing reserves it."""
    return lambda: free_ports(1)[0]
