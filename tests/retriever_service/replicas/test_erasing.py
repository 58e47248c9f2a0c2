"""Erasure is true of what is published and of what readers keep, whenever the writer dies."""

import pytest

from protos.rag.v1 import retriever_pb2 as wire
from retriever_service.selection import Selection
from tests.retriever_service.traces import traces

SECRET = "xylophonist quetzalcoatl"


def secrets(encoder, *directories):
    """Where a word of the secret, or its vector, occurs."""
    needles = [*(word.encode() for word in SECRET.split()), encoder.vector(SECRET).astype("<f4").tobytes()]
    return [found for directory in directories for found in traces(directory, *needles)]


async def fill(writer):
    await writer.put("kept", secret=SECRET)
    await writer.snapshot("with")
    await writer.replication.publish()
    await writer.put("kept as well")
    await writer.replication.publish()


def purge(writer):
    return writer.stub.Purge(wire.PurgeRequest(ids=wire.IdList(ids=["secret"])))


async def test_no_byte_of_a_purged_passage_is_left_in_the_store_or_on_a_reader(
    writer, run_reader, shared, fake_encoder
):
    await fill(writer)
    async with run_reader() as reader:
        assert secrets(fake_encoder, shared)
        assert secrets(fake_encoder, reader.data_dir)
        await purge(writer)
        assert secrets(fake_encoder, shared, writer.data_dir) == []
        await reader.replication.follow()
        assert SECRET not in await reader.texts(SECRET)
    assert secrets(fake_encoder, reader.data_dir) == []


async def test_a_purge_that_was_not_published_before_the_writer_died_is_at_its_next_start(
    run_writer, open_retriever, shared, fake_encoder
):
    async with run_writer() as writer:
        await fill(writer)
    async with open_retriever(data_dir=writer.data_dir) as alone:  # As if it was killed before it published.
        await alone.maintenance.purge("default", Selection(ids=["secret"]))
    assert secrets(fake_encoder, shared)
    async with run_writer() as writer:
        await writer.replication.publish()
        assert secrets(fake_encoder, shared) == []


async def test_a_purge_says_when_the_store_still_holds_what_was_purged(writer, shared, fake_encoder):
    await fill(writer)
    shared.rename(shared.with_name("away"))
    shared.write_text("no directory")
    with pytest.raises(Exception, match="not yet from what it publishes"):
        await purge(writer)
    shared.unlink()
    shared.with_name("away").rename(shared)
    await writer.replication.publish()
    assert secrets(fake_encoder, shared) == []


async def test_a_dropped_snapshot_is_dropped_from_the_store(writer, shared, fake_encoder):
    await fill(writer)
    await writer.stub.Delete(wire.DeleteRequest(ids=wire.IdList(ids=["secret"])))
    await writer.stub.DropSnapshot(wire.DropSnapshotRequest(index_generation=1))
    await writer.replication.publish()
    stores = [path for path in shared.rglob("*") if path.is_file() and path.read_bytes().startswith(b"SQLite")]
    assert len(stores) == 1
