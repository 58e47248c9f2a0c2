"""What the gateway costs: CPU of its process per call and per streamed message, with backends that answer at once."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from benchmarks.generator.backends import NUM_DELTAS
from benchmarks.generator.measuring import load
from benchmarks.machine import ROOT
from cli.up import free_ports
from protos.rag.v1 import (
    gateway_pb2,
    gateway_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)

_CALLERS = 8
_CALLS = 2000
_STREAMS = 40
_START_SECONDS = 60.0

Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Running:
    gateway: subprocess.Popen[str]
    gateway_address: str
    backends: subprocess.Popen[str]
    backends_address: str


def measure(rounds: int) -> dict[str, Any]:
    """Milliseconds of the processes' CPU.

    forward: per Retrieve call that the gateway forwards. answer: per Answer, which calls two backends.
    relayed, sent: per streamed message that the gateway passes on, and that a service of its own sends.
    """
    with _processes() as running:
        return asyncio.run(_measure(running, rounds))


async def _measure(running: _Running, rounds: int) -> dict[str, Any]:
    # The client shares the cores, but its CPU time is its own.
    async with (
        grpc.aio.insecure_channel(running.gateway_address) as front,
        grpc.aio.insecure_channel(running.backends_address) as back,
    ):
        await asyncio.wait_for(front.channel_ready(), _START_SECONDS)
        gateway: Any = gateway_pb2_grpc.GatewayServiceStub(front)
        forwarded: Any = retriever_pb2_grpc.RetrieverServiceStub(front)
        generator: Any = generator_pb2_grpc.GeneratorServiceStub(back)
        retrieve = retriever_pb2.RetrieveRequest(queries=[retriever_pb2.Query(text="what?")])
        parts: dict[str, tuple[subprocess.Popen[str], Call, int, int]] = {
            "forward": (running.gateway, _unary(forwarded.Retrieve, retrieve), _CALLS, 1),
            "answer": (
                running.gateway,
                _unary(gateway.Answer, gateway_pb2.AnswerRequest(question="what?")),
                _CALLS,
                1,
            ),
            "relayed": (
                running.gateway,
                _stream(gateway.StreamAnswer, gateway_pb2.StreamAnswerRequest(question="what?")),
                _STREAMS,
                NUM_DELTAS,
            ),
            "sent": (
                running.backends,
                _stream(generator.StreamGenerate, generator_pb2.StreamGenerateRequest()),
                _STREAMS,
                NUM_DELTAS,
            ),
        }
        taken: dict[str, list[float]] = {name: [] for name in parts}
        for round_number in range(rounds + 1):
            for name, (process, call, count, messages) in parts.items():
                before = _cpu_ms(process.pid)
                await _load(call, count)
                if round_number:
                    taken[name].append((_cpu_ms(process.pid) - before) / count / messages)
    medians = {name: round(statistics.median(values), 5) for name, values in taken.items()}
    return {"cpu_ms": medians, "callers": _CALLERS, "load": load()}


async def _load(call: Call, count: int) -> None:
    async def caller() -> None:
        for _ in range(count // _CALLERS):
            await call()

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))


def _unary(rpc: Any, request: Any) -> Call:
    async def call() -> None:
        await rpc(request)

    return call


def _stream(rpc: Any, request: Any) -> Call:
    async def call() -> None:
        async for _ in rpc(request):
            pass

    return call


def _cpu_ms(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _processes() -> Iterator[_Running]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        backends = stack.enter_context(_child("-m", "benchmarks.generator.backends"))
        assert backends.stdout is not None
        backends_address = backends.stdout.readline().strip()
        (port,) = free_ports(1)
        gateway = stack.enter_context(
            _child(
                "-m", "gateway", "--host=127.0.0.1", f"--port={port}", "--metrics-port=0", "--drain-seconds=0",
                f"--retriever={backends_address}", f"--generator={backends_address}",
                f"--feedback-path={folder}/feedback.jsonl",
            )
        )  # fmt: skip
        yield _Running(gateway, f"127.0.0.1:{port}", backends, backends_address)


@contextmanager
def _child(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Logs as much as a service does by default, to nowhere."""
    process = subprocess.Popen(
        [sys.executable, *argv],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()
