"""The contract of every backend: another encoder's vectors are a generation of their own, which follows the head."""

import asyncio

import pytest

from retriever_service import reencoding, succession
from retriever_service.backends import following
from retriever_service.backends.collection import RemoteCollection
from retriever_service.backends.remote import RecordKind
from retriever_service.collection import Passage, Source
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from retriever_service.selection import Selection
from serving.errors import FailedPrecondition, NotFound, Unimplemented
from tests.retriever_service.conftest import FakeEncoder

PASSAGES = [Passage(f"p{i:02}", "", f"passage number {i} of the old days", "s") for i in range(12)]
MODULES = (succession, reencoding, following)


@pytest.fixture
def other():
    return FakeEncoder("other", "d2", dim=24)


@pytest.fixture
async def filled(open_retriever, upsert, other):
    async with open_retriever(others=[other]) as retriever:
        await upsert(retriever, PASSAGES, sources=[Source("s", "d1")])
        yield retriever


@pytest.fixture
def small_steps(monkeypatch):
    for module in MODULES:
        monkeypatch.setattr(module, "BATCH_SIZE", 4)


async def reencode(retriever, *, activates):
    return [one async for one in retriever.maintenance.reencode("default", "other", activates=activates)]


async def nearest(retriever, text, **options):
    options = RetrievalOptions(mode=Mode.DENSE, include_vectors=True, top_k=100, **options)
    return await retriever.retrieve([QueryInput(text)], options)


def check_vectors(found, encoder, ids):
    for hit in found.results[0]:
        assert hit.vector == pytest.approx(encoder.vector(hit.passage.text), abs=1e-6)
    assert found.origin.encoder.identity.digest == encoder.info.identity.digest
    assert {hit.passage.id for hit in found.results[0]} == ids


IDS = {one.id for one in PASSAGES}


async def test_it_takes_the_heads_place_and_the_former_one_can_be_rolled_back_to(filled, encoder, other):
    progress = await reencode(filled, activates=True)
    assert (progress[0].num_encoded, progress[-1].num_encoded, progress[-1].num_total) == (0, 12, 12)
    found = await nearest(filled, "number 3")
    check_vectors(found, other, IDS)
    assert found.origin.index_generation == 2
    listed = await filled.maintenance.list_snapshots("default")
    assert [(one.index_generation, one.label, one.is_live, one.is_active) for one in listed] == [
        (2, "head", True, True),
        (1, "before re-encoding", False, False),
    ]
    check_vectors(await nearest(filled, "number 3", index_generation=1), encoder, IDS)
    info = await filled.library.describe("default")
    assert (info.num_passages, info.num_sources) == (12, 1)
    await filled.maintenance.activate_snapshot("default", 1)
    check_vectors(await nearest(filled, "number 3"), encoder, IDS)
    with pytest.raises(FailedPrecondition, match="holds vectors of encoder 'other' already"):
        await reencode(filled, activates=True)


async def test_writes_and_deletes_meanwhile_reach_it_too(filled, upsert, other, small_steps):
    seen = 0
    async for _ in filled.maintenance.reencode("default", "other", activates=True):
        new = Passage(f"n{seen}", "", f"written at step {seen}", "t")
        result = await upsert(filled, [new], sources=[Source("t", f"t{seen}")])
        await filled.delete("default", Selection(ids=[f"p{seen:02}"]))
        seen += 1
    ids = {f"p{i:02}" for i in range(seen, 12)} | {f"n{i}" for i in range(seen)}
    found = await nearest(filled, "written", min_sequence=result.sequence)
    check_vectors(found, other, ids)
    assert seen > 3
    sources = (await filled.list_sources("default", "", "", 10)).items
    assert {one.name: one.digest for one in sources} == {"s": "d1", "t": f"t{seen - 1}"}


async def test_not_activated_it_follows_and_can_be_pinned_until_it_takes_over(filled, upsert, encoder, other):
    (*_, last) = await reencode(filled, activates=False)
    result = await upsert(filled, [Passage("n", "", "written later on")])
    check_vectors(await nearest(filled, "later"), encoder, IDS | {"n"})
    pinned = await nearest(filled, "later", index_generation=last.index_generation, min_sequence=result.sequence)
    check_vectors(pinned, other, IDS | {"n"})
    listed = await filled.maintenance.list_snapshots("default")
    assert [(one.label, one.is_live, one.is_active) for one in listed] == [
        ("re-encoded with other", True, False),
        ("head", True, True),
    ]
    await filled.maintenance.activate_snapshot("default", last.index_generation)
    check_vectors(await nearest(filled, "later"), other, IDS | {"n"})
    await upsert(filled, [Passage("m", "", "more")])
    check_vectors(await nearest(filled, "more"), other, IDS | {"n", "m"})


async def test_it_goes_on_where_it_was_when_asked_for_again(open_retriever, upsert, other, small_steps):
    async with open_retriever(others=[other]) as retriever:
        await upsert(retriever, PASSAGES)
        stream = retriever.maintenance.reencode("default", "other", activates=True)
        while (await anext(stream)).num_encoded < 8:
            pass
        await stream.aclose()
        with pytest.raises(NotFound, match="there are 1;"):
            await nearest(retriever, "x", index_generation=2)
    other.encoded.clear()
    async with open_retriever(others=[other]) as retriever:
        await retriever.delete("default", Selection(ids=["p00"]))  # It is in the unfinished generation.
        await reencode(retriever, activates=True)
        assert len([one for one in other.encoded if "passage" in one.text]) == 4
        check_vectors(await nearest(retriever, "number"), other, IDS - {"p00"})


async def test_after_a_restart_it_goes_on_following(open_retriever, upsert, other):
    async with open_retriever(others=[other]) as retriever:
        await upsert(retriever, PASSAGES)
        await reencode(retriever, activates=False)
    async with open_retriever(others=[other]) as retriever:
        result = await upsert(retriever, [Passage("n", "", "written later on")])
        pinned = await nearest(retriever, "later", index_generation=2, min_sequence=result.sequence)
        check_vectors(pinned, other, IDS | {"n"})


async def test_a_purge_reaches_it_and_its_log(filled, other, upsert, small_steps):
    stream = filled.maintenance.reencode("default", "other", activates=True)
    while (await anext(stream)).num_encoded < 8:
        pass
    await upsert(filled, [Passage("n", "", "secret", "hidden")])
    assert (await filled.maintenance.purge("default", Selection(ids=["p01"], sources=["hidden"]))).num_purged == 2
    async for _ in stream:
        pass
    check_vectors(await nearest(filled, "number"), other, IDS - {"p01"})
    await filled.maintenance.activate_snapshot("default", 1)
    assert not {"p01", "n"} & {hit.passage.id for hit in (await nearest(filled, "number")).results[0]}
    async with filled.library.using("default") as collection:
        if isinstance(collection, RemoteCollection):
            collection.store.refresh()
            assert collection.store.record_page(RecordKind.CHANGE, "", "", 10) == []


async def test_one_that_was_not_activated_can_be_dropped_and_made_again(filled, upsert, other):
    await reencode(filled, activates=False)
    await filled.maintenance.drop_snapshot("default", 2)
    await upsert(filled, [Passage("n", "", "written later on")])
    progress = await reencode(filled, activates=True)
    assert progress[-1].index_generation == 3
    check_vectors(await nearest(filled, "later"), other, IDS | {"n"})


async def test_a_snapshot_beside_it_is_taken_or_refused_by_name(filled, upsert, encoder, other):
    await reencode(filled, activates=False)
    async with filled.library.using("default") as collection:
        is_copied = isinstance(collection, RemoteCollection) and not collection.abilities.clones
    if is_copied:
        with pytest.raises(Unimplemented, match="activate or drop index generation 2 first"):
            await filled.maintenance.create_snapshot("default", "beside")
        return
    assert (await filled.maintenance.create_snapshot("default", "beside")).index_generation == 1
    result = await upsert(filled, [Passage("n", "", "written later on")])
    check_vectors(await nearest(filled, "later"), encoder, IDS | {"n"})
    pinned = await nearest(filled, "later", index_generation=2, min_sequence=result.sequence)
    check_vectors(pinned, other, IDS | {"n"})
    await filled.maintenance.activate_snapshot("default", 2)
    check_vectors(await nearest(filled, "later"), other, IDS | {"n"})


async def test_a_stream_of_writes_that_outlasts_the_swap_never_mixes_vectors(filled, upsert, other):
    async def write():
        for i in range(6):
            await upsert(filled, [Passage(f"w{i}-{j}", "", f"long stream {i} {j}") for j in range(2)])

    writing = asyncio.create_task(write())
    await reencode(filled, activates=True)
    await writing
    found = await nearest(filled, "long stream")
    check_vectors(found, other, IDS | {f"w{i}-{j}" for i in range(6) for j in range(2)})
