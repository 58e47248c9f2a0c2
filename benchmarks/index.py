"""`python -m benchmarks.index`: what the service adds to a vector search, and how long its index takes to come up.

Writes N synthetic clustered vectors into a collection, starts the retriever on it, first without and then with index
files, and searches by ready vectors over gRPC, beside FAISS called directly on the very index file that the service
searches. CPU time is what to compare where other programs run on the machine; wall time is given too. Data are kept in
the work folder: an interrupted run goes on. Writes benchmarks/results/index.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import grpc
import numpy as np

from benchmarks.machine import RESULTS, ROOT, describe
from benchmarks.retriever_process import Server, running_retriever
from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc
from retriever_service.batch import Batch, EncodedPassage
from retriever_service.bi_encoder import BiEncoder
from retriever_service.catalog import Catalog
from retriever_service.checkpoint import DEFAULT_ENCODER
from retriever_service.collection import CollectionRequest, Passage, Vectors
from retriever_service.generations import DENSE_DIRECTORY, STORE_FILE
from retriever_service.store import Store
from retriever_service.writing import Writer

_DIM, _NUM_CLUSTERS, _BATCH = 384, 2_000, 10_000
_QUERIES_FROM = 1 << 40  # Beyond every vector that is stored.
_TOP_K, _CANDIDATES = 10, 50  # What a retrieval of 10 passages asks of the index.
_WORDS = [f"word{number}" for number in range(5_000)]


@dataclass(frozen=True, slots=True)
class Load:
    """Searches of so many callers: milliseconds a query, of CPU for server and client."""

    callers: float
    queries: float
    queries_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    client_cpu_ms: float
    queries_per_batch: float


def main() -> None:
    """Runs what has not been run yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="%(default)s")
    parser.add_argument("--queries", type=int, default=400, help="for each number of callers and round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are given (%(default)s)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--factory", default="", help="FAISS factory string (default: the service's choice)")
    parser.add_argument("--work", type=Path, default=ROOT / ".scratch" / "index", help="data (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "index.json")
    arguments = parser.parse_args()
    data_dir = arguments.work / f"{arguments.vectors}-{arguments.factory or 'default'}".replace(",", "-")
    generation = _write_collection(data_dir, arguments.vectors, arguments.factory)
    dense = generation / DENSE_DIRECTORY
    starts: dict[str, Any] = {}
    if not (data_dir / "built.json").exists():
        with running_retriever(data_dir) as (_, started):
            (data_dir / "built.json").write_text(json.dumps(started))
    starts["first_start"] = json.loads((data_dir / "built.json").read_text())
    with running_retriever(data_dir) as (server, started):
        starts["restart"] = started
        print(f"restart: {started}", flush=True)
        info = server.describe()
        indexes = _open_indexes(dense)
        alone = _one_by_one(server, indexes, arguments.queries)
        raw_rounds, load_rounds = [], []
        for _ in range(arguments.rounds):  # In turns, so that neighbours on the machine slow both alike.
            raw_rounds.append(_raw(indexes))
            load_rounds.append([asyncio.run(_load(server, one, arguments.queries)) for one in arguments.callers])
        raw = [_median(rows) for rows in zip(*raw_rounds, strict=True)]
        loads = [Load(**_median([asdict(one) for one in same])) for same in zip(*load_rounds, strict=True)]
    result = {
        **describe(),
        "command": _command(arguments),
        "vectors": arguments.vectors,
        "dim": _DIM,
        "index": {"kind": info.index_kind, "measured_recall": round(info.measured_recall, 4)},
        "note": "client and service share the cores: compare CPU times",
        **starts,
        "raw_faiss": raw,
        "one_by_one_in_turns": alone,
        "service": [asdict(load) for load in loads],
        "goals": _goals(raw, loads, alone, starts["restart"]),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["goals"], indent=1))


def _command(arguments: argparse.Namespace) -> str:
    """What to run for the same result, without this machine's folders."""
    names = ("vectors", "queries", "rounds", "callers", "factory")
    given = [f"--{name} {value}" for name in names if (value := getattr(arguments, name))]
    return " ".join(["python -m benchmarks.index", *given]).translate(str.maketrans("", "", "[],"))


def _median(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def make_vectors(start: int, count: int) -> Vectors:
    """Unit vectors (count, D) around centres that are the same in every call."""
    centres = np.random.default_rng(0).normal(size=(_NUM_CLUSTERS, _DIM)).astype(np.float32)
    random = np.random.default_rng([1, start])
    vectors = centres[random.integers(0, _NUM_CLUSTERS, count)] + random.normal(size=(count, _DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _write_collection(data_dir: Path, num_vectors: int, factory: str) -> Path:
    """Fills the store, from where it is; returns the generation's directory."""
    catalog = Catalog(data_dir)
    catalog.lock()
    if not catalog.names():
        identity = BiEncoder(DEFAULT_ENCODER).info.identity
        catalog.create(CollectionRequest("default", index_factory=factory).settle(identity))
    generation = data_dir / "collections" / "default" / "generations" / "1"
    store = Store(generation / STORE_FILE)
    with store.reading() as reader:
        there = reader.num_passages()
    writer, random = Writer(store, {}), np.random.default_rng(there)
    for start in range(there, num_vectors, _BATCH):
        vectors = make_vectors(start, min(_BATCH, num_vectors - start))
        words = random.integers(0, len(_WORDS), (len(vectors), 8))
        writer.write(
            Batch(
                [
                    EncodedPassage(
                        Passage(f"p{start + i}", "", f"{start + i} " + " ".join(_WORDS[w] for w in words[i])),
                        vectors[i],
                    )
                    for i in range(len(vectors))
                ]
            )
        )
        print(f"\rwritten {start + len(vectors):,} of {num_vectors:,}", end="", flush=True)
    store.close()
    catalog.unlock()
    return generation


def _open_indexes(dense: Path) -> list[Any]:
    """The service's own files."""
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 4 * _DIM
    indexes = []
    for entry in json.loads((dense / "manifest.json").read_text())["entries"]:
        index = faiss.read_index(str(dense / f"{entry['name']}.faiss"), faiss.IO_FLAG_MMAP_IFC)
        if entry["parameters"]:
            faiss.ParameterSpace().set_index_parameters(index, entry["parameters"])
        indexes.append(index)
    return indexes


def _raw(indexes: list[Any]) -> list[dict[str, float]]:
    """FAISS called directly, one thread: milliseconds a query by batch size."""
    rows = []
    for size in (1, 2, 4, 8, 16):
        queries = make_vectors(_QUERIES_FROM, 96)
        wall, cpu = time.monotonic(), time.thread_time()
        for start in range(0, len(queries), size):
            for index in indexes:
                index.search(queries[start : start + size], _CANDIDATES)
        cpu, wall = time.thread_time() - cpu, time.monotonic() - wall
        rows.append({"batch": size, "cpu_ms": round(1e3 * cpu / len(queries), 3),
                     "wall_ms": round(1e3 * wall / len(queries), 3)})  # fmt: skip
        print(f"raw FAISS: {rows[-1]}", flush=True)
    return rows


def _one_by_one(server: Server, indexes: list[Any], num_queries: int) -> dict[str, float]:
    """Raw FAISS and the service in turns, one query at a time, so that neighbours slow both: p50 in milliseconds."""
    raw, ours = [], []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        for vector in make_vectors(_QUERIES_FROM, num_queries):
            started = time.monotonic()
            for index in indexes:
                index.search(vector[None], _CANDIDATES)
            searched = time.monotonic()
            stub.Retrieve(_request(vector))
            raw.append(searched - started)
            ours.append(time.monotonic() - searched)
    p50s = {"raw_p50_ms": 1e3 * statistics.median(raw), "service_p50_ms": 1e3 * statistics.median(ours)}
    print(p50s, flush=True)
    return {name: round(value, 3) for name, value in p50s.items()}


def _request(vector: Vectors) -> wire.RetrieveRequest:
    given = common.Vector(data=vector.tobytes(), dtype=common.DATA_TYPE_FLOAT32, dim=_DIM)
    options = common.RetrievalOptions(mode=common.RETRIEVAL_MODE_DENSE, top_k=_TOP_K)
    return wire.RetrieveRequest(queries=[wire.Query(vector=given)], options=options)


async def _load(server: Server, callers: int, num_queries: int) -> Load:
    """Searches, each caller one after the other."""
    requests = [_request(vector) for vector in make_vectors(_QUERIES_FROM, num_queries)]
    waiting, seconds = iter(requests), []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        for request in requests[:20]:
            await stub.Retrieve(request)
        before, server_cpu, client_cpu = server.batches(), server.cpu_seconds(), time.process_time()

        async def call() -> None:
            for request in waiting:
                started = time.monotonic()
                reply = await stub.Retrieve(request)
                seconds.append(time.monotonic() - started)
                assert len(reply.results[0].passages) == _TOP_K

        started = time.monotonic()
        await asyncio.gather(*(call() for _ in range(callers)))
        wall = time.monotonic() - started
    num, searches = (now - then for now, then in zip(server.batches(), before, strict=True))
    milliseconds = sorted(1e3 * one for one in seconds)
    load = Load(
        callers,
        len(seconds),
        round(len(seconds) / wall, 1),
        round(statistics.median(milliseconds), 3),
        round(milliseconds[int(0.99 * len(milliseconds))], 3),
        round(1e3 * (server.cpu_seconds() - server_cpu) / len(seconds), 3),
        round(1e3 * (time.process_time() - client_cpu) / len(seconds), 3),
        round(num / searches, 2),
    )
    print(load, flush=True)
    return load


def _goals(
    raw: list[dict[str, float]], loads: list[Load], alone: dict[str, float], restart: dict[str, float]
) -> list[dict[str, Any]]:
    """Ours against the peer: ratios of throughput by CPU time, an overhead in milliseconds, and the restart."""
    most = loads[-1]
    peer = min(raw, key=lambda row: abs(row["batch"] - most.queries_per_batch))
    single, overhead = raw[0], alone["service_p50_ms"] - alone["raw_p50_ms"]
    names = f"{most.callers:.0f} callers against raw FAISS"
    return [
        _goal(f"{names} at batch {peer['batch']:.0f}, CPU", "ms", peer["cpu_ms"], most.server_cpu_ms,
              peer["cpu_ms"] / most.server_cpu_ms, ">= 0.8"),
        _goal(f"{names} one by one, CPU", "ms", single["cpu_ms"], most.server_cpu_ms,
              single["cpu_ms"] / most.server_cpu_ms, "> 1"),
        _goal(f"{names} on one core one by one, throughput", "queries/s", 1e3 / single["wall_ms"],
              most.queries_per_second, most.queries_per_second * single["wall_ms"] / 1e3, "> 1"),
        _goal("1 caller beside raw FAISS, p50", "ms", alone["raw_p50_ms"], alone["service_p50_ms"], overhead,
              "<= 1 (difference)"),
        _goal("restart until ready", "s", None, restart["ready_seconds"], restart["ready_seconds"], "<= 5"),
    ]  # fmt: skip


def _goal(name: str, unit: str, peer: float | None, ours: float, ratio: float, goal: str) -> dict[str, Any]:
    return {"name": name, "unit": unit, "peer_value": peer, "ours_value": ours, "ratio": round(ratio, 3), "goal": goal}


if __name__ == "__main__":
    main()
