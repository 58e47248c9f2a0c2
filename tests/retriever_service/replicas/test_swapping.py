"""Publications come and go under load and damage: no call fails, no answer mixes two, nothing damaged is served."""

import asyncio
import json

import pytest

from retriever_service.replicas.object_store import DirectoryStore
from retriever_service.replicas.published import OBJECTS, POINTER, STATES, publication_from_json
from serving.errors import FailedPrecondition

NUM_PASSAGES, NUM_CALLERS = 20, 6


class WatchedStore(DirectoryStore):
    """Counts what is brought and fetched, and fails when told to."""

    def __init__(self, root):
        super().__init__(root)
        self.uploaded, self.downloaded, self.num_until_failure = [], [], None

    def upload(self, name, source):
        self._count()
        super().upload(name, source)
        self.uploaded.append(name)

    def download(self, name, target):
        self._count()
        super().download(name, target)
        self.downloaded.append(name)

    def _count(self):
        if self.num_until_failure is not None:
            self.num_until_failure -= 1
            if self.num_until_failure < 0:
                raise OSError("the store is away")


def watch(node, shared):
    """Puts a watched store under a writer or a reader."""
    replication = node.replication
    replication._store = store = WatchedStore(shared)
    if hasattr(replication, "_fetcher"):
        replication._fetcher._store = store
    return store


async def write_version(writer, version):
    await writer.put(**{f"p{i}": f"fact {i} of version {version}" for i in range(NUM_PASSAGES)})
    await writer.replication.publish()


@pytest.mark.parametrize("num_swaps", [3, pytest.param(30, marks=pytest.mark.slow)])
async def test_swaps_under_load_fail_no_call_and_mix_no_answer(writer, run_reader, num_swaps):
    await write_version(writer, 0)
    seen, answered, is_done = [], asyncio.Condition(), False
    async with run_reader() as reader:

        async def call(caller):
            while not is_done:
                reply = await reader.find(f"fact {caller}")
                texts = [hit.passage.text for hit in reply.results[0].passages]
                seen.append((reply.provenance.index_digest, {text.split()[-1] for text in texts}))
                async with answered:
                    answered.notify_all()

        callers = [asyncio.create_task(call(i)) for i in range(NUM_CALLERS)]
        for version in range(1, num_swaps + 1):
            await write_version(writer, version)
            if version == 2:
                await writer.snapshot()
                await writer.replication.publish()
            await reader.replication.follow()
            enough = len(seen) + 2 * NUM_CALLERS
            async with answered, asyncio.timeout(60):
                await answered.wait_for(lambda enough=enough: len(seen) >= enough)
        is_done = True
        await asyncio.gather(*callers)  # Raises what any call failed with.
    assert all(len(versions) == 1 for _, versions in seen)
    assert {version for _, versions in seen for version in versions} == {
        str(version) for version in range(num_swaps + 1)
    }
    assert len({digest for digest, _ in seen}) == num_swaps + 1
    assert len(list((reader.data_dir / "collections/default/generations").iterdir())) == 2


async def test_only_what_changed_is_brought_and_fetched(writer, run_reader, shared):
    await write_version(writer, 1)
    number = await writer.snapshot()
    await writer.replication.publish()
    async with run_reader() as reader:
        uploads, downloads = watch(writer, shared), watch(reader, shared)
        await writer.replication.publish()
        assert uploads.uploaded == []
        await writer.put("one more")
        await writer.replication.publish()
        await reader.replication.follow()
        assert set(downloads.downloaded) == set(uploads.uploaded)
        state = max((shared / STATES).iterdir(), key=lambda path: path.name)
        assert 0 < len(uploads.uploaded) < len(publication_from_json(state.read_bytes()).objects())
        assert await reader.texts("one more", index_generation=number)


async def test_a_damaged_object_is_refused_and_fetched_again_when_it_is_whole(writer, run_reader, shared):
    await write_version(writer, 1)
    async with run_reader() as reader:
        await write_version(writer, 2)
        (path,) = (p for p in (shared / OBJECTS).iterdir() if b"of version 2" in p.read_bytes())
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(FailedPrecondition, match="is not what was published"):
            await reader.replication.follow()
        assert {text.split()[-1] for text in await reader.texts("fact")} == {"1"}
        path.write_bytes(whole)
        await reader.replication.follow()
        assert {text.split()[-1] for text in await reader.texts("fact")} == {"2"}


async def test_an_interrupted_fetch_goes_on_where_it_was(writer, run_reader, shared):
    await write_version(writer, 1)
    async with run_reader() as reader:
        await write_version(writer, 2)
        store = watch(reader, shared)
        store.num_until_failure = 2
        with pytest.raises(FailedPrecondition, match="the store is away"):
            await reader.replication.follow()
        store.num_until_failure = None
        await reader.replication.follow()
        assert len(store.downloaded) == len(set(store.downloaded)) > 2
        assert {text.split()[-1] for text in await reader.texts("fact")} == {"2"}
        assert list((reader.data_dir / "incoming").iterdir()) == []


async def test_an_interrupted_publication_leaves_the_former_one_and_its_rest_is_cleared(writer, run_reader, shared):
    await write_version(writer, 1)
    before = (shared / POINTER).read_bytes()
    store = watch(writer, shared)
    store.num_until_failure = 1
    with pytest.raises(OSError, match="the store is away"):
        await write_version(writer, 2)
    (shared / OBJECTS / ".unfinished-x").write_bytes(b"killed in the middle")
    (shared / STATES / "000000000099-ffffffffffffffff.json").write_bytes(b"killed before the pointer moved")
    assert (shared / POINTER).read_bytes() == before
    async with run_reader() as reader:
        assert {text.split()[-1] for text in await reader.texts("fact")} == {"1"}
        store.num_until_failure = None
        await writer.replication.publish()
        await reader.replication.follow()
        assert {text.split()[-1] for text in await reader.texts("fact")} == {"2"}
    states = [publication_from_json(path.read_bytes()) for path in (shared / STATES).iterdir()]
    assert len(states) == 2
    assert {OBJECTS + path.name for path in (shared / OBJECTS).iterdir()} == set().union(*(s.objects() for s in states))


async def test_an_object_that_was_lost_is_published_again(writer, run_reader, shared):
    await write_version(writer, 1)
    await writer.snapshot()
    await writer.replication.publish()
    for path in (shared / OBJECTS).iterdir():
        path.unlink()
    await writer.replication.publish()
    async with run_reader() as reader:
        assert len(await reader.texts("fact")) > 0


async def test_a_damaged_pointer_or_state_is_published_anew(run_writer, run_reader, shared):
    async with run_writer() as writer:
        await write_version(writer, 1)
    for path in (*(shared / STATES).iterdir(), shared / POINTER):
        path.write_bytes(b"{")
    async with run_writer() as writer:
        await writer.replication.publish()
    async with run_reader() as reader:
        assert len(await reader.texts("fact")) > 0


async def test_a_copy_that_was_damaged_is_replaced(writer, run_reader):
    await write_version(writer, 1)
    async with run_reader() as reader:
        pass
    for path in reader.data_dir.rglob("store.sqlite"):
        path.write_bytes(path.read_bytes()[:-4096])
    async with run_reader() as reader:
        await reader.replication.follow()
        assert len(await reader.texts("fact")) > 0


async def test_paths_out_of_the_data_directory_are_refused(writer, shared):
    await write_version(writer, 1)
    (path,) = (shared / STATES).glob("*2-*.json")
    given = json.loads(path.read_bytes())
    (files,) = given["collections"]["default"]["files"].values()
    files["../../../escaped"] = next(iter(files.values()))
    with pytest.raises(FailedPrecondition, match="escaped"):
        publication_from_json(json.dumps(given).encode())
