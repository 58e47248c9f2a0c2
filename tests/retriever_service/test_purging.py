"""Erasure is true: what is purged is in no file any more, whatever is rolled back, whenever the process dies."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from retriever_service import exporting, streaming
from retriever_service.collection import Passage, Source
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.selection import Selection
from serving.errors import FailedPrecondition, InvalidRequest
from tests.retriever_service.traces import traces

SECRET = "xylophonist quetzalcoatl"
KEPT = [Passage(f"k{i}", "", f"kept passage number {i} " + "filler " * 40, "open.md") for i in range(40)]


def needles_of(encoder, *texts):
    words = {word.encode() for text in texts for word in text.split()}
    return [*words, *(encoder.vector(text).astype("<f4").tobytes() for text in texts)]


async def texts(retriever, **options):
    found = await retriever.retrieve([QueryInput("kept passage " + SECRET)], RetrievalOptions(top_k=50, **options))
    return {hit.passage.id: hit.passage.text for hit in found.results[0]}


@pytest.fixture
async def filled(open_retriever, upsert):
    """Snapshot 1 holds the secret, 2 holds it under another id, 3 and the head, 4, do not hold it any more."""
    async with open_retriever() as retriever:
        create = retriever.maintenance.create_snapshot
        await upsert(retriever, [*KEPT, Passage("s", "", SECRET, "secret.md")], sources=[Source("secret.md", "d")])
        await create("default", "with")
        moved = Passage("moved", "", SECRET, "hidden.md")
        await upsert(retriever, [moved], sources=[Source("secret.md"), Source("hidden.md")], replaces_sources=True)
        await create("default", "moved")
        await retriever.delete("default", Selection(ids=["moved"]))
        await create("default", "without")
        yield retriever


async def test_no_byte_of_a_purged_passage_is_left_and_no_roll_back_brings_it_back(filled, fake_encoder, tmp_path):
    needles = needles_of(fake_encoder, SECRET)
    assert len(traces(tmp_path / "data", *needles)) > 0
    purged = await filled.maintenance.purge("default", Selection(ids=["s"]))
    assert (purged.num_purged, purged.rewritten) == (1, (1, 2, 4))
    assert traces(tmp_path / "data", *needles) == []
    for number in (1, 2, 3, 4):
        await filled.maintenance.activate_snapshot("default", number)
        assert set(await texts(filled)) == {passage.id for passage in KEPT}
    labels = [one.label for one in await filled.maintenance.list_snapshots("default")]
    assert labels == ["head", "without", "moved", "with"]


async def test_a_purged_source_is_gone_with_its_name(filled, fake_encoder, tmp_path):
    purged = await filled.maintenance.purge("default", Selection(sources=["secret.md", "hidden.md"]))
    assert purged.num_purged == 1
    assert traces(tmp_path / "data", b"secret.md", b"hidden.md", *needles_of(fake_encoder, SECRET)) == []
    assert [one.name for one in (await filled.list_sources("default", "", "", 10)).items] == ["open.md"]


async def test_what_was_deleted_or_replaced_before_is_erased_too(open_retriever, upsert, fake_encoder, tmp_path):
    async with open_retriever() as retriever:
        await upsert(retriever, [*KEPT, Passage("s", "", SECRET)])
        await upsert(retriever, [Passage("s", "", "harmless now")])
        await retriever.maintenance.purge("default", Selection(ids=["s"]))
        assert traces(tmp_path / "data", *needles_of(fake_encoder, SECRET, "harmless now")) == []


async def test_writes_during_a_purge_are_kept(filled, upsert):
    async def write():
        for i in range(10):
            await upsert(filled, [Passage(f"n{i}", "", f"written meanwhile {i}")])
            await filled.delete("default", Selection(ids=[f"k{i}"]))

    writing = asyncio.create_task(write())
    await filled.maintenance.purge("default", Selection(ids=["s"]))
    await writing
    found = await filled.get_passages("default", [f"n{i}" for i in range(10)], with_vectors=False)
    assert len(found) == 10
    assert set(await texts(filled)) == {f"n{i}" for i in range(10)} | {f"k{i}" for i in range(10, 40)}


async def test_a_sequence_from_before_a_purge_is_good_after_it(filled, upsert):
    result = await upsert(filled, [Passage("n", "", "kept new")])
    purged = await filled.maintenance.purge("default", Selection(ids=["moved"]))
    assert purged.sequence >= result.sequence
    assert "n" in await texts(filled, min_sequence=purged.sequence)
    assert (await upsert(filled, [Passage("m", "", "kept newer")])).sequence > purged.sequence


async def test_a_purge_of_nothing_is_refused(filled):
    with pytest.raises(InvalidRequest, match="selector"):
        await filled.maintenance.purge("default", Selection())


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from retriever_service import purging
from retriever_service.catalog import Catalog
from retriever_service.generations import Erasure

async def main(data_dir, fatal):
    catalog = Catalog(Path(data_dir))
    catalog.lock()
    collection = catalog.open("default")
    await collection.start()
    setattr(purging, fatal, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    await purging.purge(collection, Erasure(("s",)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("fatal", ["_find", "renew_head", "_renew_snapshot"])
async def test_a_purge_that_was_killed_is_completed_at_the_next_start(
    open_retriever, upsert, fake_encoder, tmp_path, fatal
):
    async with open_retriever() as retriever:
        await upsert(retriever, [*KEPT, Passage("s", "", SECRET)])
        await retriever.maintenance.create_snapshot("default", "with")
    root = Path(__file__).parents[2]
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, tmp_path / "data", fatal, cwd=root)
    assert await killed.wait() == -signal.SIGKILL
    needles = needles_of(fake_encoder, SECRET)
    assert traces(tmp_path / "data", *needles) != []
    async with open_retriever() as retriever:
        assert traces(tmp_path / "data", *needles) == []
        assert "s" not in await texts(retriever, index_generation=1)
        assert len(await texts(retriever)) == len(KEPT)


@pytest.mark.parametrize("index_generation", [0, 1])
async def test_a_purge_does_not_wait_for_who_takes_an_export_slowly(
    filled, fake_encoder, tmp_path, monkeypatch, index_generation
):
    monkeypatch.setattr(streaming, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(exporting, "_BATCH_PASSAGES", 1)
    stream = filled.maintenance.export("default", index_generation, with_vectors=True)
    await anext(stream)
    await asyncio.wait_for(filled.maintenance.purge("default", Selection(ids=["s"])), 60)
    assert traces(tmp_path / "data", *needles_of(fake_encoder, SECRET)) == []
    with pytest.raises(FailedPrecondition, match="read it again"):
        [one async for one in stream]


async def test_an_export_that_is_taken_in_time_is_whole_although_a_purge_waits_for_it(filled, monkeypatch):
    monkeypatch.setattr(exporting, "_BATCH_PASSAGES", 1)
    stream = filled.maintenance.export("default", 0, with_vectors=False)
    await anext(stream)
    purging = asyncio.create_task(filled.maintenance.purge("default", Selection(ids=["s"])))
    await asyncio.sleep(0.05)
    passages = [stored.passage.id async for _, batch in stream for stored in batch.passages]
    assert set(passages) == {passage.id for passage in KEPT}
    await purging
