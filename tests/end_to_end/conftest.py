"""Real processes on loopback that a test may kill, stop and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rag_client import Passage, RagClient

ROOT = Path(__file__).parents[2]
READY_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class ServiceProcess:
    """One service; its port stays the same over restarts."""

    module: str
    flags: list[str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        argv = [sys.executable, "-m", self.module, f"--port={self.port}", "--metrics-port=0", "--host=127.0.0.1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*argv, *self.flags, *more], cwd=ROOT, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with RagClient(self.address) as client:
            while not client.is_ready():
                assert self.process is not None
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                assert time.monotonic() < deadline, f"{self.module} is not ready: {self.log.read_text()[-2000:]}"
                time.sleep(0.1)


class System:
    """The three services, and a second generator where a test asks for it."""

    def __init__(self, folder: Path, *, num_generators: int) -> None:
        self.folder = folder
        self.retriever = ServiceProcess(
            "retriever_service", [f"--data-dir={folder / 'retriever'}"], folder / "retriever.log"
        )
        self.generators = [
            ServiceProcess("generator_service", [], folder / f"generator{n}.log") for n in range(num_generators)
        ]
        targets = ",".join(generator.address for generator in self.generators)
        flags = [
            f"--retriever={self.retriever.address}",
            f"--generator=ipv4:{targets}",
            f"--feedback-path={folder / 'feedback.jsonl'}",
            "--canary-interval-seconds=0.5",
        ]
        self.gateway = ServiceProcess("gateway", flags, folder / "gateway.log")

    @property
    def services(self) -> list[ServiceProcess]:
        return [self.gateway, *self.generators, self.retriever]

    def start(self) -> None:
        for service in reversed(self.services):
            service.start()
        for service in reversed(self.services):
            service.wait_ready()

    def stop(self) -> None:
        for service in self.services:
            if service.process is not None and service.process.poll() is None:
                service.signal(signal.SIGTERM)
        for service in self.services:
            if service.process is not None:
                try:
                    service.process.wait(20)
                except subprocess.TimeoutExpired:
                    service.kill()

    def client(self) -> RagClient:
        return RagClient(self.gateway.address, timeout=60)

    def rag(self, *arguments: str) -> subprocess.Popen[str]:
        """The command line, connected to this system."""
        argv = [sys.executable, "-m", "cli", *arguments, "--address", self.gateway.address]
        return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima", "Norway": "Oslo"}


def capital_passages() -> list[Passage]:
    return [
        Passage(f"{country}#0", f"{capital} is the capital of {country}.", country, f"{country}.md")
        for country, capital in CAPITALS.items()
    ]


@pytest.fixture
def system(tmp_path, request):
    """A running system that holds six capitals; mark with `num_generators(n)` for more than one generator."""
    marker = request.node.get_closest_marker("num_generators")
    made = System(tmp_path, num_generators=marker.args[0] if marker else 1)
    try:
        made.start()
        with made.client() as client:
            client.upsert(capital_passages())
        yield made
    finally:
        made.stop()


@pytest.fixture
def tiny_encoder(tmp_path) -> Path:
    """A BERT of another shape than the default encoder, with random weights."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from retriever_service.checkpoint import find_checkpoint

    folder = tmp_path / "tiny-encoder"
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_checkpoint("all-MiniLM-L6-v2").path).save_pretrained(folder)
    return folder
