"""The contract of every backend: index generations are frozen, pinned, compared, activated, erased from and dropped."""

import asyncio

import pytest

from retriever_service.backends.catalog import RemoteCatalog
from retriever_service.backends.collection import FOLLOW_SECONDS
from retriever_service.collection import CollectionRequest, Passage, Source
from retriever_service.fusion import FusionChange
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from retriever_service.selection import Selection
from retriever_service.snapshots import Change
from serving.errors import FailedPrecondition, NotFound

OLD = [Passage("a", "", "alpha stays", "s1"), Passage("b", "", "beta goes", "s2"), Passage("c", "", "gamma was", "s2")]
AS_IT_WAS = {"a": "alpha stays", "b": "beta goes", "c": "gamma was"}
AS_IT_IS = {"a": "alpha stays", "c": "gamma is", "d": "delta comes"}


@pytest.fixture
async def changed(retriever, upsert):
    """One snapshot, 1; the head, 2, has lost b with its source, changed c and gained d."""
    await fill(retriever, upsert)
    return retriever


async def fill(retriever, upsert):
    await upsert(retriever, OLD, sources=[Source("s1", "d1"), Source("s2", "d2")])
    await retriever.maintenance.create_snapshot("default", "first")
    await retriever.delete("default", Selection(sources=["s2"]))
    await upsert(retriever, [Passage("c", "", "gamma is", "s1"), Passage("d", "", "delta comes", "s1")])


async def ask(retriever, text="alpha beta gamma delta", **options):
    return await retriever.retrieve([QueryInput(text)], RetrievalOptions(mode=Mode.DENSE, top_k=50, **options))


async def texts(retriever, **options):
    return {hit.passage.id: hit.passage.text for hit in (await ask(retriever, **options)).results[0]}


async def listed(retriever):
    found = await retriever.maintenance.list_snapshots("default")
    return [(one.index_generation, one.label, one.is_live, one.is_active, one.num_passages) for one in found]


async def test_a_snapshot_keeps_the_heads_number_and_the_head_takes_the_next(changed):
    assert await listed(changed) == [(2, "head", True, True, 3), (1, "first", False, False, 3)]
    head, first = await changed.maintenance.list_snapshots("default")
    assert first.sequence < head.sequence
    assert first.digest != head.digest


async def test_a_pinned_generation_answers_as_it_was_in_both_stages(changed, lexical):
    assert await texts(changed, index_generation=1) == AS_IT_WAS
    assert await texts(changed) == AS_IT_IS
    found = await changed.retrieve([QueryInput("beta")], RetrievalOptions(mode=Mode.LEXICAL, index_generation=1))
    assert [hit.passage.id for hit in found.results[0]] == ["b"]
    (_, first) = await changed.maintenance.list_snapshots("default")
    origin = found.origin
    assert (origin.index_generation, origin.applied.sequence) == (1, first.sequence)
    assert origin.applied.index_digest == first.digest


async def test_one_question_can_be_put_to_two_generations(changed):
    """As CompareAnswers does."""
    before, after = await asyncio.gather(ask(changed, index_generation=1), ask(changed, index_generation=2))
    assert (before.origin.index_generation, after.origin.index_generation) == (1, 2)
    assert before.origin.state != after.origin.state
    assert {hit.passage.id for hit in before.results[0]} ^ {hit.passage.id for hit in after.results[0]} == {"b", "d"}


async def test_an_unknown_generation_is_refused_naming_those_there_are(changed):
    with pytest.raises(NotFound, match="generation 9; there are 1, 2; the active one is 2"):
        await ask(changed, index_generation=9)
    for change in (changed.maintenance.activate_snapshot, changed.maintenance.drop_snapshot):
        with pytest.raises(NotFound, match="there are 1, 2"):
            await change("default", 9)


async def test_rolled_back_it_serves_the_snapshot_while_writes_go_to_the_head(changed, upsert):
    snapshot, previous = await changed.maintenance.activate_snapshot("default", 1)
    assert (snapshot.index_generation, snapshot.is_active, previous) == (1, True, 2)
    result = await upsert(changed, [Passage("e", "", "epsilon arrives")])
    assert await texts(changed) == AS_IT_WAS
    assert "e" in await texts(changed, index_generation=2, min_sequence=result.sequence)
    with pytest.raises(FailedPrecondition, match="frozen"):
        await ask(changed, min_sequence=result.sequence)
    info = await changed.library.describe("default")
    assert (info.index_generation, info.num_passages, info.num_sources, info.sequence) == (1, 3, 2, result.sequence)
    await changed.maintenance.activate_snapshot("default", 2)
    assert await texts(changed) == AS_IT_IS | {"e": "epsilon arrives"}


async def test_what_is_active_and_frozen_and_how_it_scores_survives_a_restart(open_retriever, upsert):
    async with open_retriever() as retriever:
        await fill(retriever, upsert)
        await retriever.maintenance.activate_snapshot("default", 1)
        await retriever.library.configure("default", 0.5, FusionChange())
        state = await retriever.state_of("default")
    async with open_retriever() as retriever:
        assert await texts(retriever) == AS_IT_WAS
        assert await retriever.state_of("default") == state
        assert (await ask(retriever)).temperature == 0.5
        await retriever.maintenance.activate_snapshot("default", 2)
        assert await texts(retriever) == AS_IT_IS


async def test_the_difference_names_every_passage_that_differs_in_id_order(changed):
    async def diff(before, after):
        return [one async for batch in changed.maintenance.diff_snapshots("default", before, after) for one in batch]

    assert await diff(1, 2) == [("b", Change.REMOVED), ("c", Change.CHANGED), ("d", Change.ADDED)]
    assert await diff(2, 1) == [("b", Change.ADDED), ("c", Change.CHANGED), ("d", Change.REMOVED)]
    assert await diff(1, 1) == []


async def test_a_generation_is_dropped_unless_it_is_served_or_takes_the_writes(changed):
    await changed.maintenance.activate_snapshot("default", 1)
    with pytest.raises(FailedPrecondition, match="is being served"):
        await changed.maintenance.drop_snapshot("default", 1)
    with pytest.raises(FailedPrecondition, match="takes the writes"):
        await changed.maintenance.drop_snapshot("default", 2)
    await changed.maintenance.activate_snapshot("default", 2)
    await changed.maintenance.drop_snapshot("default", 1)
    with pytest.raises(NotFound, match="there are 2"):
        await ask(changed, index_generation=1)
    assert await texts(changed) == AS_IT_IS
    assert (await changed.maintenance.create_snapshot("default", "")).index_generation == 2
    assert [one[0] for one in await listed(changed)] == [3, 2]


async def test_a_purge_reaches_every_generation_and_no_roll_back_brings_it_back(changed, upsert):
    before = {one.index_generation: one.digest for one in await changed.maintenance.list_snapshots("default")}
    moved = [Passage("a2", "", "alpha stays", "s1"), *(Passage(id_, "", AS_IT_IS[id_], "s1") for id_ in "cd")]
    await upsert(changed, moved, sources=[Source("s1", "d3")], replaces_sources=True)
    purged = await changed.maintenance.purge("default", Selection(ids=["a2"]))  # The snapshot has it as a.
    assert (purged.num_purged, purged.rewritten) == (1, (1, 2))
    assert await texts(changed) == {"c": "gamma is", "d": "delta comes"}
    await changed.maintenance.activate_snapshot("default", 1)
    assert await texts(changed) == {"b": "beta goes", "c": "gamma was"}
    assert [one[4] for one in await listed(changed)] == [2, 2]
    after = {one.index_generation: one.digest for one in await changed.maintenance.list_snapshots("default")}
    assert after[1] != before[1]
    assert (await changed.maintenance.purge("default", Selection(sources=["s2"]))).num_purged == 2
    assert await texts(changed) == {}
    assert (await changed.library.describe("default")).num_sources == 1
    await upsert(changed, [Passage("f", "", "phi")])  # The head still takes writes, the snapshot none.
    assert await texts(changed) == {}


async def test_swaps_under_load_fail_no_call_and_mix_no_answer(changed):
    seen, is_done = set(), False

    async def call():
        while not is_done:
            found = await ask(changed)
            seen.add((found.origin.index_generation, frozenset(hit.passage.text for hit in found.results[0])))

    callers = [asyncio.create_task(call()) for _ in range(3)]
    for swap in range(4):
        await changed.maintenance.activate_snapshot("default", 1 + swap % 2)
        await asyncio.sleep(0.1)
    is_done = True
    await asyncio.gather(*callers)
    assert seen <= {(1, frozenset(AS_IT_WAS.values())), (2, frozenset(AS_IT_IS.values()))}


def pointed_at(server):
    """The index that the alias names."""
    alias = server._alias("default")
    if hasattr(server._client, "describe_alias"):
        return server._client.describe_alias(alias)["collection_name"]
    (index,) = server._client.indices.get_alias(name=alias)
    return index


async def test_the_alias_names_the_generation_that_is_served(changed, make_catalog):
    if not isinstance(make_catalog(), RemoteCatalog):
        pytest.skip("files have no aliases")
    async with changed.library.using("default") as collection:
        server = collection.server
    assert pointed_at(server) == server._generation("default", 2)
    await changed.maintenance.activate_snapshot("default", 1)
    assert pointed_at(server) == server._generation("default", 1)
    await changed.maintenance.create_snapshot("default", "second")  # Of the head, which is not served.
    assert pointed_at(server) == server._generation("default", 1)


async def test_an_export_holds_one_generation_whole(changed, encoder):
    batches = [one async for one in changed.maintenance.export("default", 1, with_vectors=True)]
    (described,) = [snapshot for snapshot, _ in batches if snapshot is not None]
    (_, first) = await changed.maintenance.list_snapshots("default")
    assert described == first
    stored = {one.passage.id: one for _, batch in batches for one in batch.passages}
    assert {id_: one.passage.text for id_, one in stored.items()} == AS_IT_WAS
    assert all(one.vector == pytest.approx(encoder.vector(one.passage.text), abs=1e-6) for one in stored.values())
    sources = {source.name: source.digest for _, batch in batches for source in batch.sources}
    assert sources == {"s1": "d1", "s2": "d2"}
    plain = [
        one async for _, batch in changed.maintenance.export("default", 0, with_vectors=False) for one in batch.passages
    ]
    assert {one.passage.id: one.passage.text for one in plain} == AS_IT_IS
    assert [one.vector for one in plain] == [None] * 3


async def test_an_export_streams_more_than_a_batch_in_order(retriever, upsert):
    await upsert(retriever, [Passage(f"p{i:03}", "", f"text {i}") for i in range(300)])
    batches = [batch async for _, batch in retriever.maintenance.export("default", 0, with_vectors=False)]
    assert [one.passage.id for batch in batches for one in batch.passages] == [f"p{i:03}" for i in range(300)]
    assert {batch.num_total for batch in batches} == {300}


async def test_what_one_retriever_freezes_and_activates_the_others_learn(open_retriever, make_catalog, upsert):
    if not isinstance(make_catalog(), RemoteCatalog):
        pytest.skip("one process owns a data directory")
    async with open_retriever() as one, open_retriever() as other:
        await one.library.create(CollectionRequest("default"))
        await fill(one, upsert)
        assert await texts(other, index_generation=1) == AS_IT_WAS
        await one.maintenance.activate_snapshot("default", 1)
        assert await texts(other, index_generation=2) == AS_IT_IS
        await asyncio.sleep(FOLLOW_SECONDS)
        assert await texts(other) == AS_IT_WAS
        async with other.library.using("default") as collection:
            if collection.abilities.has_one_writer:
                return
        result = await upsert(other, [Passage("e", "", "epsilon")])
        await one.maintenance.create_snapshot("default", "second")
        result = await upsert(other, [Passage("g", "", "eta")])  # It thinks the former head takes writes.
        found = await texts(one, index_generation=3, min_sequence=result.sequence)
        assert found == AS_IT_IS | {"e": "epsilon", "g": "eta"}
        assert "g" not in await texts(one, index_generation=2)
