"""Our side: a retriever process, asked over gRPC by ready vectors, by one caller or many."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.retriever import data
from benchmarks.retriever_process import Server, running_retriever
from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc
from retriever_service.collection import Vectors

_NUM_WARM = 20


@dataclass(frozen=True, slots=True)
class Load:
    """Searches of so many callers: milliseconds a query, of CPU for server and client."""

    callers: float
    queries_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    client_cpu_ms: float
    queries_per_batch: float


@contextmanager
def serving(corpus: data.Corpus, work: Path) -> Iterator[tuple[Server, dict[str, Any]]]:
    """A retriever on the corpus; its first start, which built the index, and the present one."""
    data_dir = work / corpus.name
    data.write_collection(data_dir, corpus)
    if (first := data.read_json(data_dir / "built.json")) is None:
        with running_retriever(data_dir, "--encoder", data.ENCODER) as (_, first):
            (data_dir / "built.json").write_text(json.dumps(first))
    with running_retriever(data_dir, "--encoder", data.ENCODER) as (server, restart):
        yield server, {"first_start": first, "restart": restart}


def found_by(server: Server, num: int) -> Any:
    """The numbers (J, k) of what the service finds for the first queries."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        replies = [stub.Retrieve(request(vector)).results[0].passages for vector in data.queries(num)]
    return np.array([[int(one.passage.id[1:]) for one in passages] for passages in replies])


def beside(server: Server, search: Any, num_queries: int) -> dict[str, float]:
    """The service and a peer in turns, one query at a time, so that neighbours slow both: p50 in milliseconds.

    Of the second time that each query is asked: what it finds is then in memory, of the peer's file as of ours.
    """
    theirs, ours = [], []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        for vector in [*data.queries(num_queries), *data.queries(num_queries)]:
            started = time.perf_counter()
            search(vector[None])
            searched = time.perf_counter()
            stub.Retrieve(request(vector))
            theirs.append(searched - started)
            ours.append(time.perf_counter() - searched)
    return {"peer_p50_ms": _p50_ms(theirs[num_queries:]), "service_p50_ms": _p50_ms(ours[num_queries:])}


def loads(server: Server, callers: Sequence[int], *, num_queries: int, rounds: int) -> list[dict[str, float]]:
    """Medians over rounds, for each number of callers."""
    measured = [[asyncio.run(_load(server, one, num_queries)) for one in callers] for _ in range(rounds)]
    return [_median([asdict(one) for one in same]) for same in zip(*measured, strict=True)]


def request(vector: Vectors) -> wire.RetrieveRequest:
    """A retrieval of the first passages by a ready vector."""
    given = common.Vector(data=vector.tobytes(), dtype=common.DATA_TYPE_FLOAT32, dim=data.DIM)
    options = common.RetrievalOptions(mode=common.RETRIEVAL_MODE_DENSE, top_k=data.TOP_K)
    return wire.RetrieveRequest(queries=[wire.Query(vector=given)], options=options)


async def _load(server: Server, callers: int, num_queries: int) -> Load:
    """Searches, each caller one after the other."""
    requests = [request(vector) for vector in data.queries(num_queries)]
    waiting, seconds = iter(requests), list[float]()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        for one in requests[:_NUM_WARM]:
            await stub.Retrieve(one)
        before, server_cpu, client_cpu = server.batches(), server.cpu_seconds(), time.process_time()

        async def call() -> None:
            for one in waiting:
                started = time.perf_counter()
                reply = await stub.Retrieve(one)
                seconds.append(time.perf_counter() - started)
                assert len(reply.results[0].passages) == data.TOP_K

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        wall = time.perf_counter() - started
    num, searches = (now - then for now, then in zip(server.batches(), before, strict=True))
    return Load(
        callers=callers,
        queries_per_second=round(len(seconds) / wall, 1),
        p50_ms=_p50_ms(seconds),
        p99_ms=round(1e3 * sorted(seconds)[int(0.99 * len(seconds))], 3),
        server_cpu_ms=round(1e3 * (server.cpu_seconds() - server_cpu) / len(seconds), 3),
        client_cpu_ms=round(1e3 * (time.process_time() - client_cpu) / len(seconds), 3),
        queries_per_batch=round(num / searches, 2),
    )


def _p50_ms(seconds: Sequence[float]) -> float:
    return round(1e3 * statistics.median(seconds), 3)


def _median(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}
