"""Generations swapped under load, over real gRPC: no call fails, no answer mixes two of them."""

import asyncio

import grpc.aio
import pytest

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc
from retriever_service.__main__ import build_service
from retriever_service.config import RetrieverConfig
from serving.testing import test_server as run_server

NUM_PASSAGES, NUM_CALLERS = 30, 8


@pytest.fixture
async def stub(open_retriever):
    async with (
        open_retriever() as retriever,
        run_server(build_service(RetrieverConfig(), retriever)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield retriever_pb2_grpc.RetrieverServiceStub(channel)


async def write_version(stub, version):
    passages = [
        wire.PassageUpsert(passage=common.Passage(id=f"p{i}", text=f"fact {i} of version {version}"))
        for i in range(NUM_PASSAGES)
    ]
    await stub.Upsert(iter([wire.UpsertRequest(passages=passages)]))


@pytest.mark.parametrize("num_swaps", [5, pytest.param(30, marks=pytest.mark.slow)])
async def test_swaps_under_load_fail_no_call_and_mix_no_answer(stub, num_swaps):
    for version in (1, 2, 3):  # Snapshots 1 and 2, and the head, 3.
        await write_version(stub, version)
        if version < 3:
            await stub.CreateSnapshot(wire.CreateSnapshotRequest(label=f"version {version}"))
    seen, answered, is_done = [], asyncio.Condition(), False

    async def call(caller):
        while not is_done:
            queries = [wire.Query(text=f"fact {(caller + i) % NUM_PASSAGES}") for i in range(3)]
            reply = await stub.Retrieve(wire.RetrieveRequest(queries=queries))
            texts = [hit.passage.text for result in reply.results for hit in result.passages]
            seen.append((reply.provenance.index_generation, reply.provenance.index_digest, texts))
            async with answered:
                answered.notify_all()

    callers = [asyncio.create_task(call(i)) for i in range(NUM_CALLERS)]
    digests = {}
    for swap in range(num_swaps):
        reply = await stub.ActivateSnapshot(wire.ActivateSnapshotRequest(index_generation=1 + swap % 3))
        digests[reply.snapshot.index_generation] = reply.snapshot.digest
        enough = len(seen) + 2 * NUM_CALLERS
        async with answered, asyncio.timeout(60):
            await answered.wait_for(lambda enough=enough: len(seen) >= enough)
    is_done = True
    await asyncio.gather(*callers)  # Raises what any call failed with.
    assert {generation for generation, *_ in seen} == {1, 2, 3}
    for generation, digest, texts in seen:
        assert len(texts) == 15
        assert {text.split()[-1] for text in texts} == {str(generation)}
        assert digest == digests[generation]
