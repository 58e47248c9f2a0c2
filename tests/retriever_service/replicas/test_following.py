"""Readers serve what the writer published, whole, and nothing else."""

import asyncio
import time

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from retriever_service.collection import Passage
from retriever_service.config import RetrieverConfig
from retriever_service.lexical_index import LexicalIndex
from retriever_service.replica_servicer import WRITES
from serving.errors import FailedPrecondition, NotReady
from serving.status import DETAILS_KEY

METHODS = wire.DESCRIPTOR.services_by_name["RetrieverService"].methods
READS = {
    "Retrieve", "Embed", "GetPassages", "ListPassages", "ListSources", "DescribeCollection", "ListCollections",
    "GetCollectionState", "ListSnapshots", "DiffSnapshots", "ExportCollection", "GetInfo",
}  # fmt: skip


def reason_of(error):
    details = dict(error.trailing_metadata())[DETAILS_KEY]
    for one in status_pb2.Status.FromString(details).details:
        info = error_details_pb2.ErrorInfo()
        if one.Unpack(info):
            return info.reason
    raise AssertionError("no reason")


async def test_a_reader_answers_as_its_writer_did_when_it_published(writer, run_reader):
    await writer.put("cats purr", "dogs bark")
    await writer.replication.publish()
    await writer.put("cats hiss")
    async with run_reader() as reader:
        assert set(await reader.texts("cats")) == {"cats purr", "dogs bark"}
        await writer.replication.publish()
        await reader.replication.follow()
        ours, theirs = await reader.find("cats"), await writer.find("cats")
    assert ours.provenance.index_digest == theirs.provenance.index_digest
    assert ours.provenance.index_generation == theirs.provenance.index_generation
    assert ours.results == theirs.results
    assert len(ours.results[0].passages) == 3


async def test_snapshots_activation_scoring_and_collections_follow(writer, run_reader):
    await writer.put(a="first version")
    number = await writer.snapshot("one")
    await writer.put(a="second version")
    await writer.replication.publish()
    async with run_reader() as reader:
        assert await reader.texts("version") == ["second version"]
        assert await reader.texts("version", index_generation=number) == ["first version"]
        await writer.stub.ActivateSnapshot(wire.ActivateSnapshotRequest(index_generation=number))
        await writer.stub.ConfigureCollection(wire.ConfigureCollectionRequest(temperature=0.5))
        settings = wire.CollectionSettings(name="other")
        await writer.stub.CreateCollection(wire.CreateCollectionRequest(settings=settings))
        await writer.put("elsewhere", collection="other")
        await writer.replication.publish()
        await reader.replication.follow()
        reply = await reader.find("version")
        assert [hit.passage.text for hit in reply.results[0].passages] == ["first version"]
        assert reply.temperature == 0.5
        assert await reader.texts("elsewhere", collection="other") == ["elsewhere"]
        listed = await reader.stub.ListSnapshots(wire.ListSnapshotsRequest())
        assert [one.index_generation for one in listed.snapshots] == [number + 1, number]
        await writer.stub.DropCollection(wire.DropCollectionRequest(collection="other"))
        await writer.replication.publish()
        await reader.replication.follow()
        with pytest.raises(grpc.aio.AioRpcError, match="no collection 'other'"):
            await reader.texts("elsewhere", collection="other")
    assert not (reader.data_dir / "collections/other").exists()


def test_every_method_is_known_to_read_or_to_write():
    assert {method.name for method in METHODS} == WRITES | READS


async def test_every_write_to_a_reader_is_refused_with_the_address_of_the_writer(writer, run_reader):
    await writer.put("kept")
    await writer.replication.publish()
    async with run_reader() as reader:
        for method in METHODS:
            if method.name not in WRITES:
                continue
            request = getattr(wire, method.input_type.name)()
            call = getattr(reader.stub, method.name)(iter([request]) if method.client_streaming else request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                _ = [one async for one in call] if method.server_streaming else await call
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "dns:///writer:50051" in refused.value.details()
            assert reason_of(refused.value) == "READ_ONLY_REPLICA"
        assert await reader.texts("kept") == ["kept"]


async def test_get_info_names_role_writer_and_lag(writer, run_reader):
    await writer.put("x")
    await writer.replication.publish()
    request = wire.RetrieverServiceGetInfoRequest()
    async with run_reader() as reader:
        info = await reader.stub.GetInfo(request)
        assert (info.role, info.writer_address) == (info.ROLE_READER, "dns:///writer:50051")
        later = await reader.stub.GetInfo(request)
        assert 0 < info.replication_lag_seconds < later.replication_lag_seconds
        before = reader.replication.lag_seconds
        await reader.replication.follow()
        assert reader.replication.lag_seconds < before
    assert (await writer.stub.GetInfo(request)).role == wire.RetrieverServiceGetInfoResponse.ROLE_WRITER


async def test_a_reader_builds_no_lexical_index(writer, run_reader, monkeypatch):
    await writer.put("cats purr")
    await writer.snapshot()
    await writer.put("cats hiss")
    await writer.replication.publish()

    def build(self):
        raise AssertionError("an index is built")

    monkeypatch.setattr(LexicalIndex, "clear", build)
    async with run_reader() as reader:
        assert set(await reader.texts("cats", mode=common.RETRIEVAL_MODE_LEXICAL)) == {"cats purr", "cats hiss"}


async def test_a_request_for_a_change_that_is_not_here_waits_for_it_or_is_told_so(writer, run_reader):
    await writer.put("before")
    await writer.replication.publish()
    async with run_reader(replica_wait_seconds=30) as reader:
        sequence = await writer.put("after")
        asked = asyncio.create_task(reader.texts("after", min_sequence=sequence))
        await writer.replication.publish()
        await reader.replication.follow()
        assert "after" in await asked
    async with run_reader() as reader:
        with pytest.raises(grpc.aio.AioRpcError, match=f"has change {sequence};") as behind:
            await reader.texts("after", min_sequence=sequence + 1)
        assert behind.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(behind.value) == "REPLICA_BEHIND"


async def test_after_a_restart_it_serves_its_copy_while_the_store_is_away(writer, run_reader, shared):
    await writer.put("cats purr")
    await writer.replication.publish()
    async with run_reader():
        pass
    shared.rename(shared.with_name("away"))
    async with run_reader() as reader:
        assert await reader.texts("cats") == ["cats purr"]
        with pytest.raises(NotReady):
            await reader.replication.follow()
        shared.with_name("away").rename(shared)
        await reader.replication.follow()


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


async def test_a_reader_is_not_ready_before_there_is_something_to_serve(
    open_retriever, upsert, run_writer, run_reader, tmp_path
):
    async with open_retriever(data_dir=tmp_path / "writer") as alone:
        await upsert(alone, [Passage("a", "", "cats purr")])

    async def answer_when_ready():
        async with run_reader(follow_interval_seconds=0.01) as reader:
            return await reader.texts("cats")

    answering = asyncio.create_task(answer_when_ready())
    await asyncio.to_thread(wait_for, tmp_path / "reader/replica.json")
    assert not answering.done()
    async with run_writer():
        assert await answering == ["cats purr"]


async def test_a_directory_of_a_writer_is_not_taken_for_a_copy_nor_a_copy_for_a_writers(run_writer, run_reader):
    async with run_writer() as writer:
        await writer.put("mine")
        await writer.replication.publish()
    with pytest.raises(FailedPrecondition, match="collections of its own"):
        async with run_reader(data_dir=writer.data_dir):
            pass
    async with run_reader() as reader:
        pass
    with pytest.raises(FailedPrecondition, match="local copy of a read replica"):
        async with run_writer(data_dir=reader.data_dir):
            pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"publish_to": "file:///a", "follow": "file:///a", "writer_address": "w"}, "exclude each other"),
        ({"publish_to": "file:///a"}, "writer_address"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RetrieverConfig(**settings)
