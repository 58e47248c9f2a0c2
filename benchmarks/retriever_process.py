"""A retriever process to measure: started on a data directory, its memory, CPU time and batches read from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.machine import ROOT
from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc


@dataclass(frozen=True, slots=True)
class Server:
    """A retriever process."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int

    def cpu_seconds(self) -> float:
        """CPU time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def own_mib(self) -> float:
        """Memory of its own: without mapped files, which the system may take back."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)

    def batches(self) -> tuple[float, float]:
        """Queries and searches of the dense index so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            lines = page.read().decode().splitlines()
        name = "rag_retriever_dense_search_queries"
        values = dict(line.split() for line in lines if line.startswith((f"{name}_sum", f"{name}_count")))
        return float(values[f"{name}_sum"]), float(values[f"{name}_count"])

    def describe(self) -> Any:
        """The collection."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            return stub.DescribeCollection(wire.DescribeCollectionRequest(collection="default")).collection


@contextmanager
def running_retriever(data_dir: Path, *flags: str) -> Iterator[tuple[Server, dict[str, float]]]:
    """A retriever on the data with further flags, and how long it took until it was ready."""
    port, metrics_port = _free_port(), _free_port()
    command = [
        sys.executable,
        "-m",
        "retriever_service",
        *flags,
        "--port",
        str(port),
        "--metrics-port",
        str(metrics_port),
    ]
    log = (data_dir / "retriever.log").open("w")
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_dir), "--log-format", "json"], cwd=ROOT, stdout=log, stderr=log
    )
    server = Server(process, port, metrics_port)
    try:
        peak = 0.0
        # By default a channel that was refused tries again after a second or more: that is not the server's time.
        backoff = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[*backoff, ("grpc.min_reconnect_backoff_ms", 100)])
        health = health_pb2_grpc.HealthStub(channel)
        while not _is_serving(health):
            if process.poll() is not None:
                raise SystemExit((data_dir / "retriever.log").read_text()[-2000:])
            peak = max(peak, server.own_mib())
            time.sleep(0.05)
        ready = {"ready_seconds": time.monotonic() - started, "cpu_seconds": server.cpu_seconds()}
        ready["peak_own_mib"] = peak
        channel.close()
        logged = [json.loads(line) for line in (data_dir / "retriever.log").read_text().splitlines() if line[:1] == "{"]
        ready |= {f"{one['event'].replace(' ', '_')}_seconds": one["seconds"] for one in logged
                  if one.get("event") in ("dense index ready", "collection opened")}  # fmt: skip
        yield server, {name: round(value, 3) for name, value in ready.items()}
    finally:
        process.terminate()
        process.wait()
        log.close()


def _is_serving(health: Any) -> bool:
    try:
        reply = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
    except grpc.RpcError:
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
