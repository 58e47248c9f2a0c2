"""A place has one writer: another is refused until it takes over, and then the former one writes no more."""

import grpc
import pytest

from retriever_service.replicas import published
from retriever_service.replicas.object_store import open_store
from retriever_service.replicas.published import POINTER, read_pointer
from serving.errors import FailedPrecondition


@pytest.fixture(params=["file", "s3"])
def url(request, shared):
    if request.param == "file":
        return f"file://{shared}"
    return f"{request.getfixturevalue('s3_url')}/{request.function.__name__}"


async def test_a_second_writer_is_refused_and_the_first_goes_on_after_a_restart(run_writer, tmp_path, url):
    async with run_writer(url=url) as writer:
        await writer.put("first")
        await writer.replication.publish()
    before = open_store(url).read(POINTER)
    number = read_pointer(open_store(url)).number
    with pytest.raises(FailedPrecondition, match=r"writer:50051.*--take-over"):
        async with run_writer(tmp_path / "other", url=url):
            pass
    assert open_store(url).read(POINTER) == before
    async with run_writer(url=url) as writer:
        await writer.put("second")
        await writer.replication.publish()
    pointer = read_pointer(open_store(url))
    assert pointer.epoch == 1
    assert pointer.number > number


async def test_who_takes_over_is_followed_and_the_former_writer_takes_no_write(run_writer, run_reader, tmp_path, url):
    async with run_writer(url=url) as former:
        await former.put("of the former")
        await former.replication.publish()
        async with run_reader(url=url) as reader, run_writer(tmp_path / "other", url=url, take_over=True) as newer:
            await newer.put("of the newer")
            await newer.replication.publish()
            await reader.replication.follow()
            assert await reader.texts("of the") == ["of the newer"]
            with pytest.raises(FailedPrecondition, match="another retriever is the writer"):
                await former.replication.publish()
            for call in (former.put("refused"), former.snapshot()):
                with pytest.raises(grpc.RpcError, match="another retriever is the writer") as refused:
                    await call
                assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            await newer.replication.publish()
            await reader.replication.follow()
            assert await reader.texts("of the") == ["of the newer"]
    assert read_pointer(open_store(url)).epoch == 2


async def test_two_writers_in_the_same_moment_are_told_apart(run_writer, shared, monkeypatch):
    async with run_writer() as writer:
        await writer.replication.publish()
        store, write = open_store(f"file://{shared}"), published.json.dumps
        pointer = store.read(POINTER)

        def overtaken(given, *rest, **options):
            if isinstance(given, dict) and given.get("state"):
                store.write(POINTER, pointer.replace(b'"epoch": 1', b'"epoch": 2'))
            return write(given, *rest, **options)

        await writer.put("news")
        monkeypatch.setattr(published.json, "dumps", overtaken)
        with pytest.raises(FailedPrecondition, match="at the same moment"):
            await writer.replication.publish()
        assert b'"epoch": 2' in store.read(POINTER)


async def test_a_replica_is_promoted_and_others_follow_it(run_writer, run_reader, tmp_path):
    async with run_writer() as writer:
        await writer.put("cats purr")
        number = await writer.snapshot()
        await writer.replication.publish()
        async with run_reader() as reader:
            assert await reader.texts("cats") == ["cats purr"]
    with pytest.raises(FailedPrecondition, match="--take-over"):
        async with run_writer(reader.data_dir):
            pass
    async with run_writer(reader.data_dir, take_over=True) as promoted:
        assert await promoted.texts("cats") == ["cats purr"]
        await promoted.put("cats hiss")
        await promoted.replication.publish()
        assert set(await promoted.texts("cats", mode="RETRIEVAL_MODE_HYBRID")) == {"cats purr", "cats hiss"}
        async with run_reader(tmp_path / "another") as follower:
            assert set(await follower.texts("cats")) == {"cats purr", "cats hiss"}
            assert await follower.texts("cats", index_generation=number) == ["cats purr"]
    async with run_writer(reader.data_dir) as promoted:  # Without the flag from now on.
        assert len(await promoted.texts("cats")) == 2
