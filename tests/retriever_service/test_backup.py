"""Backups taken while the retriever serves, and the way back."""

import asyncio
import contextlib
import json

import pytest

from retriever_service import backup
from retriever_service.collection import CollectionRequest, Passage
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.selection import Selection
from serving.errors import FailedPrecondition


async def ids(retriever, **options):
    found = await retriever.retrieve([QueryInput("words")], RetrievalOptions(top_k=100, **options))
    return {hit.passage.id for hit in found.results[0]}


async def test_a_backup_taken_under_writes_restores_snapshots_and_one_state_of_each_head(
    open_retriever, upsert, tmp_path
):
    async with open_retriever() as retriever:
        await upsert(retriever, [Passage("a", "", "words a"), Passage("b", "", "words b")])
        await retriever.maintenance.create_snapshot("default", "first")
        await retriever.delete("default", Selection(ids=["b"]))
        await retriever.library.create(CollectionRequest("empty"))
        acknowledged, begun = set(), asyncio.Event()

        async def write():
            for i in range(1_000):
                await upsert(retriever, [Passage(f"n{i}", "", f"words number {i}")])
                acknowledged.add(f"n{i}")
                begun.set()

        writing = asyncio.create_task(write())
        await begun.wait()
        before = set(acknowledged)
        made = await asyncio.to_thread(backup.create, tmp_path / "data", tmp_path / "backup")
        after = set(acknowledged)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
    assert made.collections == ("default", "empty")
    backup.restore(tmp_path / "backup", tmp_path / "elsewhere")
    async with open_retriever(data_dir=tmp_path / "elsewhere") as retriever:
        held = set()
        async for _, batch in retriever.maintenance.export("default", 0, with_vectors=False):
            held |= {one.passage.id for one in batch.passages}
        assert before | {"a"} <= held <= after | {"a", f"n{len(after)}"}
        assert await ids(retriever, index_generation=1) == {"a", "b"}
        await retriever.maintenance.activate_snapshot("default", 1)
        assert (await retriever.library.describe("empty")).num_passages == 0


async def test_what_is_damaged_or_in_the_way_is_refused(open_retriever, upsert, tmp_path):
    source, data = tmp_path / "backup", tmp_path / "data"
    async with open_retriever() as retriever:
        await upsert(retriever, [Passage("a", "", "words")])
        backup.create(data, source)
        with pytest.raises(FailedPrecondition, match="exists"):
            backup.create(data, source)
        with pytest.raises(FailedPrecondition, match="in use"):
            backup.restore(source, data)
    with pytest.raises(FailedPrecondition, match="holds collections already"):
        backup.restore(source, data)
    (store,) = source.rglob("store.sqlite")
    content = bytearray(store.read_bytes())
    content[-1] ^= 1
    store.write_bytes(content)
    with pytest.raises(FailedPrecondition, match="damaged"):
        backup.restore(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    manifest = source / "backup.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 9}))
    with pytest.raises(FailedPrecondition, match="format version 9"):
        backup.verify(source)


async def test_a_restore_that_was_interrupted_left_nothing_and_is_done_again(
    open_retriever, upsert, tmp_path, monkeypatch
):
    source, target = tmp_path / "backup", tmp_path / "elsewhere"
    async with open_retriever() as retriever:
        for name in ("default", "other"):
            await retriever.library.create(CollectionRequest(name))
            await upsert(retriever, [Passage("a", "", "words")], collection=name)
        backup.create(tmp_path / "data", source)

    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup.durable, "sync_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backup.restore(source, target)
    assert not list((target / "collections").iterdir())
    assert backup.restore(source, target).collections == ("default", "other")
    async with open_retriever(data_dir=target) as retriever:
        assert await ids(retriever) == {"a"}


def test_a_directory_without_collections_is_not_backed_up(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(FailedPrecondition, match="holds no collections"):
        backup.create(tmp_path / "data", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


async def test_a_purge_that_ends_while_it_is_copied_is_in_the_backup(open_retriever, upsert, tmp_path, monkeypatch):
    async with open_retriever() as retriever:
        await upsert(retriever, [Passage("a", "", "words"), Passage("s", "", "unspeakable words")])
        loop, copy, copied = asyncio.get_running_loop(), backup._copy_generations, []

        def copy_and_purge(*arguments):
            copy(*arguments)
            if not copied:
                purging = retriever.maintenance.purge("default", Selection(ids=["s"]))
                copied.append(asyncio.run_coroutine_threadsafe(purging, loop).result())

        monkeypatch.setattr(backup, "_copy_generations", copy_and_purge)
        await asyncio.to_thread(backup.create, tmp_path / "data", tmp_path / "backup")
    assert copied
    assert not [path for path in (tmp_path / "backup").rglob("*.sqlite") if b"unspeakable" in path.read_bytes()]
