"""A real process: warm-up, serving, SIGTERM under load."""

import asyncio
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.rag.v1 import generator_pb2, generator_pb2_grpc
from serving.channel import open_channel

PROGRAM = Path(__file__).with_name("slow_service.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_process():
    """A slow service in a process of its own: (process, port, metrics port)."""
    port, metrics_port = free_port(), free_port()
    flags = ["--port", str(port), "--metrics-port", str(metrics_port), "--drain-seconds", "0.5"]
    started = subprocess.Popen(
        [sys.executable, str(PROGRAM), *flags],
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROGRAM.parents[2],
        env={"PYTHONPATH": str(PROGRAM.parents[2]), "PATH": ""},
    )
    try:
        yield started, port, metrics_port
    finally:
        started.kill()
        started.communicate()


@pytest.fixture
def process():
    with running_process() as running:
        yield running


async def test_stopping_one_of_two_replicas_under_load_fails_no_call(process):
    started, port, metrics_port = process
    outcomes: list[str] = []
    with running_process() as (_, other_port, _):
        target = f"ipv4:127.0.0.1:{port},127.0.0.1:{other_port}"
        async with open_channel(target, service="rag.v1.GeneratorService") as channel:
            stub = generator_pb2_grpc.GeneratorServiceStub(channel)

            async def call() -> None:
                try:
                    await stub.Generate(generator_pb2.GenerateRequest(), timeout=30, wait_for_ready=True)
                    outcomes.append("OK")
                except grpc.aio.AioRpcError as error:
                    outcomes.append(f"{error.code().name} {error.details()}")

            await call()
            calls = [asyncio.create_task(call()) for _ in range(50)]
            await asyncio.sleep(0.1)
            metrics = await asyncio.to_thread(
                lambda: urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics").read()
            )
            started.send_signal(signal.SIGTERM)
            for _ in range(10):  # Some before health has told the channel, some after.
                calls += [asyncio.create_task(call()) for _ in range(5)]
                await asyncio.sleep(0.1)
            await asyncio.gather(*calls)
    assert b"rag_slow_rpcs_in_flight" in metrics
    assert outcomes == ["OK"] * 101
    assert await asyncio.to_thread(started.wait, 30) == 0


async def test_calls_accepted_before_sigterm_are_answered_by_a_lone_server(process):
    started, port, _ = process
    async with open_channel(f"127.0.0.1:{port}", service="rag.v1.GeneratorService", health_check=False) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        await stub.Generate(generator_pb2.GenerateRequest(), timeout=30, wait_for_ready=True)
        calls = [stub.Generate(generator_pb2.GenerateRequest(), timeout=30) for _ in range(50)]
        await asyncio.sleep(0.1)
        started.send_signal(signal.SIGTERM)
        calls += [stub.Generate(generator_pb2.GenerateRequest(), timeout=30) for _ in range(20)]
        replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(reply).__name__ for reply in replies] == ["GenerateResponse"] * 70


def test_sigterm_before_anything_is_loaded_stops_at_once(process):
    started, _, _ = process
    for line in started.stderr:
        if "listening" in line:
            break
    started.send_signal(signal.SIGTERM)
    assert started.wait(20) == 0


def test_a_taken_port_is_said_plainly(process):
    started, port, _ = process
    for line in started.stderr:
        if "event=serving" in line:
            break
    second = subprocess.run(
        [sys.executable, str(PROGRAM), "--port", str(port)], capture_output=True, text=True, timeout=60,
        cwd=PROGRAM.parents[2], env={"PYTHONPATH": str(PROGRAM.parents[2]), "PATH": ""}, check=False,
    )  # fmt: skip
    assert second.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr
