"""Re-encoding: another encoder's vectors in a generation of their own, built beside the one that serves."""

import asyncio
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from retriever_service import reencoding, replication, succession
from retriever_service.collection import Passage
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from retriever_service.selection import Selection
from serving.errors import FailedPrecondition, NotFound
from tests.retriever_service.traces import traces

PASSAGES = [Passage(f"p{i}", "", f"passage number {i} of the old days") for i in range(20)]


@pytest.fixture
async def retriever(open_retriever, upsert, other_encoder):
    async with open_retriever(others=[other_encoder]) as retriever:
        await upsert(retriever, PASSAGES)
        yield retriever


@pytest.fixture
def other_encoder(fake_encoder):
    return type(fake_encoder)("other", "d2", dim=24)


async def reencode(retriever, *, activates):
    return [one async for one in retriever.maintenance.reencode("default", "other", activates=activates)]


async def nearest(retriever, text, **options):
    options = RetrievalOptions(mode=Mode.DENSE, include_vectors=True, top_k=100, **options)
    return await retriever.retrieve([QueryInput(text)], options)


def check_vectors(found, encoder):
    """Every vector is this encoder's, and so is the query's."""
    for hit in found.results[0]:
        assert hit.vector == pytest.approx(encoder.vector(hit.passage.text), abs=1e-6)
    assert found.origin.encoder.identity.digest == encoder.info.identity.digest


async def test_a_new_generation_is_served_once_complete_and_the_old_one_can_be_rolled_back_to(
    retriever, fake_encoder, other_encoder
):
    progress = await reencode(retriever, activates=True)
    assert (progress[0].num_encoded, progress[-1].num_encoded, progress[-1].num_total) == (0, 20, 20)
    found = await nearest(retriever, "number 3")
    assert (found.origin.index_generation, len(found.results[0])) == (2, 20)
    check_vectors(found, other_encoder)
    listed = await retriever.maintenance.list_snapshots("default")
    assert [(one.index_generation, one.is_live, one.is_active) for one in listed] == [
        (2, True, True),
        (1, False, False),
    ]
    check_vectors(await nearest(retriever, "number 3", index_generation=1), fake_encoder)
    await retriever.maintenance.activate_snapshot("default", 1)
    check_vectors(await nearest(retriever, "number 3"), fake_encoder)


async def test_writes_and_deletes_after_the_start_reach_the_new_generation_too(retriever, upsert, monkeypatch):
    for module in (succession, reencoding):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    seen = 0
    async for _ in retriever.maintenance.reencode("default", "other", activates=True):
        result = await upsert(retriever, [Passage(f"n{seen}", "", f"written at step {seen}")])
        await retriever.delete("default", Selection(ids=[f"p{seen}"]))
        seen += 1
        assert (await nearest(retriever, "written", min_sequence=result.sequence)).results[0]
    found = await nearest(retriever, "written", min_sequence=result.sequence)
    # The last message comes when the new generation serves already.
    assert {hit.passage.id for hit in found.results[0]} == {f"p{i}" for i in range(seen, 20)} | {
        f"n{i}" for i in range(seen)
    }
    assert seen > 5
    assert found.origin.index_generation == 2


async def test_without_activation_it_follows_the_head_and_can_be_pinned_until_it_takes_over(
    retriever, upsert, fake_encoder, other_encoder
):
    (*_, last) = await reencode(retriever, activates=False)
    result = await upsert(retriever, [Passage("n", "", "written later on")])
    check_vectors(await nearest(retriever, "later"), fake_encoder)
    for _ in range(100):
        pinned = await nearest(retriever, "later", index_generation=last.index_generation)
        if pinned.results[0][0].passage.id == "n":
            break
        await asyncio.sleep(0.02)
    check_vectors(pinned, other_encoder)
    assert pinned.results[0][0].passage.id == "n"
    await retriever.maintenance.activate_snapshot("default", last.index_generation)
    found = await nearest(retriever, "later", min_sequence=result.sequence)
    check_vectors(found, other_encoder)
    assert (await upsert(retriever, [Passage("m", "", "more")])).num_deleted == 0
    check_vectors(await nearest(retriever, "more"), other_encoder)


async def test_it_goes_on_where_it_was_when_asked_for_again(open_retriever, upsert, other_encoder, monkeypatch):
    for module in (succession, reencoding):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    async with open_retriever(others=[other_encoder]) as retriever:
        await upsert(retriever, PASSAGES)
        stream = retriever.maintenance.reencode("default", "other", activates=True)
        seen = [await anext(stream) for _ in range(3)]
        await stream.aclose()
        assert seen[-1].num_encoded == 8
        with pytest.raises(NotFound, match="there are 1;"):
            await nearest(retriever, "x", index_generation=2)
    other_encoder.encoded.clear()
    async with open_retriever(others=[other_encoder]) as retriever:
        progress = await reencode(retriever, activates=True)
        assert progress[0].num_encoded == 8
        assert len([one for one in other_encoder.encoded if "passage" in one.text]) == 12
        check_vectors(await nearest(retriever, "number"), other_encoder)


async def test_a_complete_generation_goes_on_following_after_a_restart(open_retriever, upsert, other_encoder):
    async with open_retriever(others=[other_encoder]) as retriever:
        await upsert(retriever, PASSAGES)
        await reencode(retriever, activates=False)
    async with open_retriever(others=[other_encoder]) as retriever:
        await upsert(retriever, [Passage("n", "", "written later on")])
        await retriever.maintenance.activate_snapshot("default", 2)
        found = await nearest(retriever, "later")
        assert found.results[0][0].passage.id == "n"
        check_vectors(found, other_encoder)


async def test_a_stream_of_writes_that_outlasts_the_swap_never_mixes_vectors(retriever, upsert, other_encoder):
    async def write():
        for i in range(12):
            await upsert(retriever, [Passage(f"w{i}-{j}", "", f"long stream {i} {j}") for j in range(3)])

    writing = asyncio.create_task(write())
    await reencode(retriever, activates=True)
    await writing
    found = await nearest(retriever, "long stream")
    assert len(found.results[0]) == 20 + 36
    check_vectors(found, other_encoder)


async def test_purging_reaches_a_generation_that_is_not_activated(retriever, other_encoder, tmp_path):
    await reencode(retriever, activates=False)
    purged = await retriever.maintenance.purge("default", Selection(ids=["p7"]))
    assert purged.rewritten == (1, 2)
    vector = other_encoder.vector(PASSAGES[7].text).astype("<f4").tobytes()
    assert traces(tmp_path / "data", vector) == []
    await retriever.maintenance.activate_snapshot("default", 2)
    assert "p7" not in {hit.passage.id for hit in (await nearest(retriever, "number 7")).results[0]}


async def test_purging_reaches_a_generation_that_is_still_being_made(retriever, other_encoder, tmp_path, monkeypatch):
    for module in (succession, reencoding):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    stream = retriever.maintenance.reencode("default", "other", activates=True)
    for _ in range(3):
        await anext(stream)
    assert (await retriever.maintenance.purge("default", Selection(ids=["p1"]))).rewritten == (1, 2)
    vector = other_encoder.vector(PASSAGES[1].text).astype("<f4").tobytes()
    assert traces(tmp_path / "data", vector) == []
    async for _ in stream:
        pass
    found = await nearest(retriever, "number 1")
    assert {hit.passage.id for hit in found.results[0]} == {passage.id for passage in PASSAGES} - {"p1"}
    check_vectors(found, other_encoder)


async def test_another_encoder_takes_the_place_of_one_that_was_not_activated_and_nothing_is_mixed(
    open_retriever, upsert, other_encoder, monkeypatch
):
    for module in (succession, reencoding):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    third = type(other_encoder)("third", "d3", dim=32)
    async with open_retriever(others=[other_encoder, third]) as retriever:
        await upsert(retriever, PASSAGES)
        await reencode(retriever, activates=False)
        async for _ in retriever.maintenance.reencode("default", "third", activates=True):
            await upsert(retriever, [Passage("n", "", "written meanwhile")])
            await asyncio.sleep(0.02)  # A follower of the former one would write here.
        found = await nearest(retriever, "number")
        assert len(found.results[0]) == 21
        check_vectors(found, third)


async def test_purging_reaches_vectors_of_what_was_deleted_while_they_were_made(
    retriever, other_encoder, tmp_path, monkeypatch
):
    for module in (succession, reencoding):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    stream = retriever.maintenance.reencode("default", "other", activates=True)
    for _ in range(3):
        await anext(stream)
    await retriever.delete("default", Selection(ids=["p1"]))
    await retriever.maintenance.purge("default", Selection(ids=["p1"]))
    await stream.aclose()
    vector = other_encoder.vector(PASSAGES[1].text).astype("<f4").tobytes()
    assert traces(tmp_path / "data", vector) == []


async def test_a_head_takes_writes_while_it_is_copied(retriever, monkeypatch):
    replicate, waited = replication._replicate, []

    def writing_meanwhile(sql, *, with_vectors):
        is_done = replicate(sql, with_vectors=with_vectors)
        (path,) = (file for _, name, file in sql.execute("PRAGMA database_list") if name == "head")
        with closing(sqlite3.connect(path, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")  # Raises when somebody holds writers back.
        waited.append(path)
        return is_done

    monkeypatch.setattr(replication, "_replicate", writing_meanwhile)
    await retriever.maintenance.purge("default", Selection(ids=["p1"]))
    assert waited


async def test_an_encoder_that_the_collection_has_or_that_is_not_allowed_is_refused(retriever):
    for name, reason in (("fake", "ENCODER_UNCHANGED"), ("unknown", "ENCODER_NOT_ALLOWED")):
        with pytest.raises(FailedPrecondition) as raised:
            async for _ in retriever.maintenance.reencode("default", name, activates=False):
                pass
        assert raised.value.reason == reason


async def test_rows_and_given_vectors_keep_their_meaning(retriever):
    before = await retriever.get_passages("default", ["p1", "p9"], with_vectors=True)
    await reencode(retriever, activates=True)
    after = await retriever.get_passages("default", ["p1", "p9"], with_vectors=True)
    assert [one.passage for one in after.values()] == [one.passage for one in before.values()]
    assert {np.shape(one.vector) for one in after.values()} == {(24,)}
