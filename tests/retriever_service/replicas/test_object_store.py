"""Every store keeps the same promises; readers follow over S3 as over a directory."""

from types import SimpleNamespace

import pytest

from retriever_service.replicas.object_store import open_store
from serving.errors import InvalidRequest


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path):
    url = f"file://{tmp_path}/a%20folder" if request.param == "file" else request.getfixturevalue("s3_url") + "/store"
    return open_store(url)


def test_an_object_is_whole_or_not_there(store, tmp_path):
    assert store.read("objects/none") is None
    store.write("current.json", b"one")
    store.write("current.json", b"two")
    assert store.read("current.json") == b"two"
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 65_536)
    store.upload("objects/a", source)
    store.download("objects/a", target)
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(FileNotFoundError):
        store.download("objects/none", target)


def test_an_object_is_replaced_only_where_nobody_else_did(store):
    assert store.replace("pointer.json", b"one", None)
    assert not store.replace("pointer.json", b"two", None)
    assert not store.replace("pointer.json", b"two", b"none")
    assert store.replace("pointer.json", b"two", b"one")
    assert store.read("pointer.json") == b"two"
    assert not store.replace("absent.json", b"two", b"one")
    assert store.read("absent.json") is None


def test_a_bucket_that_knows_conditions_is_not_written_after_somebody_else():
    """The local server knows none; obstore's store in memory does, and so do S3, MinIO and others."""
    obstore = pytest.importorskip("obstore")
    bucket = open_store("s3://bucket/prefix")
    memory = bucket._store = obstore.store.MemoryStore()
    assert bucket.replace("pointer.json", b"one", None)

    class Slow:
        """Reads, and then somebody writes."""

        exceptions, put = obstore.exceptions, staticmethod(obstore.put)

        def get(self, store, name):
            try:
                found = obstore.get(store, name)
                content = found.bytes()
            finally:
                obstore.put(store, name, b"of somebody else")
            return SimpleNamespace(bytes=lambda: content, meta=found.meta)

    bucket._obstore = Slow()
    assert not bucket.replace("pointer.json", b"two", b"one")
    assert not bucket.replace("new.json", b"one", None)
    for name in ("pointer.json", "new.json"):
        assert bytes(obstore.get(memory, name).bytes()) == b"of somebody else"


def test_objects_are_listed_by_folder_and_deleted(store):
    assert store.names("objects/") <= {"objects/a"}
    for name in ("objects/a", "objects/b", "states/c"):
        store.write(name, b"x")
    assert store.names("objects/") == {"objects/a", "objects/b"}
    store.delete(["objects/a"])
    store.delete([])
    assert store.names("objects/") == {"objects/b"}
    assert store.names("states/") == {"states/c"}


@pytest.mark.parametrize("url", ["/a/path", "file://host/path", "s3://", "https://bucket/x"])
def test_other_places_are_refused(url):
    with pytest.raises(InvalidRequest, match="neither"):
        open_store(url)


async def test_a_reader_follows_over_s3(run_writer, run_reader, s3_url):
    async with run_writer(url=s3_url) as writer:
        await writer.put("cats purr")
        number = await writer.snapshot()
        await writer.replication.publish()
        async with run_reader(url=s3_url) as reader:
            assert await reader.texts("cats") == ["cats purr"]
            await writer.put("cats hiss")
            await writer.replication.publish()
            await reader.replication.follow()
            assert set(await reader.texts("cats")) == {"cats purr", "cats hiss"}
            assert await reader.texts("cats", index_generation=number) == ["cats purr"]
            found = await reader.find("cats")
            assert found.provenance.index_digest == (await writer.find("cats")).provenance.index_digest
    store = open_store(s3_url)
    assert len(store.names("states/")) == 2
