"""Snapshots: frozen states that are listed, pinned, served, compared and dropped while the head takes writes."""

import asyncio
import json
import random
import re
import signal
import sys
from pathlib import Path

import pytest

from retriever_service import snapshots
from retriever_service.collection import Passage
from retriever_service.fusion import FusionChange
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.selection import Selection
from retriever_service.snapshots import Change
from serving.errors import FailedPrecondition, InvalidRequest, NotFound

OLD = [Passage("a", "", "alpha stays"), Passage("b", "", "beta goes"), Passage("c", "", "gamma was")]


@pytest.fixture
async def retriever(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, OLD)
        yield retriever


@pytest.fixture
async def changed(retriever, upsert):
    """One snapshot, 1; the head, 2, has lost b, changed c and gained d."""
    await retriever.maintenance.create_snapshot("default", "first")
    await retriever.delete("default", Selection(ids=["b"]))
    await upsert(retriever, [Passage("c", "", "gamma is"), Passage("d", "", "delta comes")])
    return retriever


async def ask(retriever, text="alpha beta gamma delta", **options):
    options = {"top_k": 10, **options}
    return await retriever.retrieve([QueryInput(text)], RetrievalOptions(**options))


async def texts(retriever, **options):
    found = await ask(retriever, **options)
    return {hit.passage.id: hit.passage.text for hit in found.results[0]}


async def activate(retriever, number):
    return await retriever.maintenance.activate_snapshot("default", number)


async def test_a_snapshot_takes_the_heads_number_and_the_head_the_next(changed):
    found = await changed.maintenance.list_snapshots("default")
    assert [(one.index_generation, one.label, one.is_live, one.is_active) for one in found] == [
        (2, "head", True, True),
        (1, "first", False, False),
    ]
    assert [one.num_passages for one in found] == [3, 3]
    assert found[1].sequence == 3 < found[0].sequence
    assert (await ask(changed)).origin.index_generation == 2


async def test_a_pinned_snapshot_answers_as_it_was(changed):
    assert await texts(changed, index_generation=1) == {"a": "alpha stays", "b": "beta goes", "c": "gamma was"}
    assert await texts(changed) == {"a": "alpha stays", "c": "gamma is", "d": "delta comes"}
    origin = (await ask(changed, index_generation=1)).origin
    (snapshot,) = [one for one in await changed.maintenance.list_snapshots("default") if not one.is_live]
    assert (origin.index_generation, origin.applied.index_digest) == (1, snapshot.digest)


async def test_an_unknown_generation_is_refused_naming_those_there_are(changed):
    with pytest.raises(NotFound, match="generation 9; there are 1, 2; the active one is 2"):
        await ask(changed, index_generation=9)
    with pytest.raises(NotFound, match="there are 1, 2"):
        await activate(changed, 9)


async def test_rolling_back_serves_the_snapshot_while_writes_go_to_the_head(changed, upsert):
    snapshot, previous = await activate(changed, 1)
    assert (snapshot.index_generation, snapshot.is_active, previous) == (1, True, 2)
    result = await upsert(changed, [Passage("e", "", "epsilon arrives")])
    assert "e" not in await texts(changed, text="epsilon")
    assert "e" in await texts(changed, text="epsilon", index_generation=2, min_sequence=result.sequence)
    with pytest.raises(FailedPrecondition, match="frozen"):
        await ask(changed, min_sequence=result.sequence)
    await activate(changed, 2)
    assert "e" in await texts(changed, text="epsilon", min_sequence=result.sequence)


async def test_what_is_active_and_what_is_frozen_survives_a_restart(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, OLD)
        await retriever.maintenance.create_snapshot("default", "first")
        await retriever.delete("default", Selection(ids=["b"]))
        await activate(retriever, 1)
        state = await retriever.state_of("default")
    async with open_retriever() as retriever:
        assert set(await texts(retriever)) == {"a", "b", "c"}
        assert await retriever.state_of("default") == state
        info = await retriever.library.describe("default")
        assert (info.index_generation, info.num_passages, info.sequence) == (1, 3, 4)
        await activate(retriever, 2)
        assert set(await texts(retriever)) == {"a", "c"}


async def test_scoring_of_a_served_snapshot_can_be_configured_and_lasts(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, OLD)
        await retriever.maintenance.create_snapshot("default", "")
        await activate(retriever, 1)
        await retriever.library.configure("default", 0.5, FusionChange())
    async with open_retriever() as retriever:
        assert (await ask(retriever)).temperature == 0.5
        assert (await ask(retriever, index_generation=2)).temperature == 0.5


async def test_the_difference_names_every_passage_that_differs_in_id_order(changed):
    async def diff(before, after):
        return [one async for batch in changed.maintenance.diff_snapshots("default", before, after) for one in batch]

    assert await diff(1, 2) == [("b", Change.REMOVED), ("c", Change.CHANGED), ("d", Change.ADDED)]
    assert await diff(2, 1) == [("b", Change.ADDED), ("c", Change.CHANGED), ("d", Change.REMOVED)]
    assert await diff(1, 1) == []


async def test_a_snapshot_is_dropped_unless_it_is_served(changed, tmp_path):
    await activate(changed, 1)
    with pytest.raises(FailedPrecondition, match="is being served"):
        await changed.maintenance.drop_snapshot("default", 1)
    with pytest.raises(FailedPrecondition, match="takes the writes"):
        await changed.maintenance.drop_snapshot("default", 2)
    await activate(changed, 2)
    await changed.maintenance.drop_snapshot("default", 1)
    with pytest.raises(NotFound, match="there are 2"):
        await ask(changed, index_generation=1)
    assert len(list((tmp_path / "data").glob("collections/default/generations/*"))) == 1
    assert (await changed.maintenance.create_snapshot("default", "")).index_generation == 2


async def test_a_damaged_snapshot_is_not_served(changed, tmp_path):
    (path,) = (tmp_path / "data").glob("collections/default/generations/*/manifest.json")
    store = path.parent / "store.sqlite"
    content = bytearray(store.read_bytes())
    content[-10] ^= 1
    store.write_bytes(content)
    with pytest.raises(FailedPrecondition, match="damaged"):
        await activate(changed, 1)
    assert (await ask(changed)).origin.index_generation == 2


async def test_a_snapshot_of_a_newer_format_is_refused(changed, tmp_path):
    (path,) = (tmp_path / "data").glob("collections/default/generations/*/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(FailedPrecondition, match="format version 99"):
        await ask(changed, index_generation=1)


async def test_many_snapshots_can_be_pinned_though_few_stay_open(retriever, upsert):
    for i in range(5):
        await upsert(retriever, [Passage("n", "", f"number {i}")])
        await retriever.maintenance.create_snapshot("default", str(i))
    for i in (0, 3, 1, 4, 2, 0):
        assert (await texts(retriever, text="number", index_generation=i + 1))["n"] == f"number {i}"
    async with retriever.library.using("default") as collection:
        assert len(collection.opened) == 2


async def test_more_snapshots_than_stay_open_can_be_pinned_at_once(retriever, upsert):
    for i in range(5):
        await upsert(retriever, [Passage("n", "", f"number {i}")])
        await retriever.maintenance.create_snapshot("default", str(i))
    numbers = [1 + i % 5 for i in range(20)]
    found = await asyncio.gather(*(texts(retriever, text="number", index_generation=i) for i in numbers))
    assert [one["n"] for one in found] == [f"number {i - 1}" for i in numbers]


async def test_listing_beside_a_drop_tells_what_is_left(changed, monkeypatch):
    await changed.maintenance.create_snapshot("default", "second")
    describe, dropped = snapshots.describe_generation, []

    async def describe_after_a_drop(collection, number):
        if not dropped:
            dropped.append(number)
            await snapshots.drop_snapshot(collection, 1)
        return await describe(collection, number)

    monkeypatch.setattr(snapshots, "describe_generation", describe_after_a_drop)
    assert [one.index_generation for one in await changed.maintenance.list_snapshots("default")] == [3, 2]


async def test_a_snapshot_that_cannot_be_read_keeps_no_other_from_being_served(open_retriever, upsert, tmp_path):
    async with open_retriever() as retriever:
        await upsert(retriever, OLD)
        await retriever.maintenance.create_snapshot("default", "")
    (manifest,) = (tmp_path / "data").glob("collections/default/generations/*/manifest.json")
    (manifest.parent / "store.sqlite").write_bytes(b"no database, and long enough to be taken for a file of one")
    async with open_retriever() as retriever:
        assert set(await texts(retriever)) == {"a", "b", "c"}
        with pytest.raises(FailedPrecondition, match="damaged"):
            await activate(retriever, 1)


async def test_a_long_label_is_refused(retriever):
    with pytest.raises(InvalidRequest, match="label is 129 bytes"):
        await retriever.maintenance.create_snapshot("default", "x" * 129)


async def test_a_snapshot_goes_on_when_its_caller_leaves(retriever):
    call = asyncio.create_task(retriever.maintenance.create_snapshot("default", "left"))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    async with retriever.library.using("default") as collection, collection.changing:
        pass
    assert [one.label for one in await retriever.maintenance.list_snapshots("default")] in (["head", "left"], ["head"])
    assert await texts(retriever, text="alpha") != {}


async def test_a_snapshot_opened_for_a_caller_who_left_serves_the_next(changed):
    for _ in range(5):
        call = asyncio.create_task(texts(changed, index_generation=1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert "b" in await texts(changed, index_generation=1)


async def test_an_export_holds_everything_of_one_state(changed):
    passages, first = {}, None
    async for described, batch in changed.maintenance.export("default", 1, with_vectors=True):
        first = first or described
        passages |= {one.passage.id: one for one in batch.passages}
    assert (first.index_generation, first.num_passages, first.label) == (1, 3, "first")
    assert {id_: one.passage.text for id_, one in passages.items()} == {p.id: p.text for p in OLD}
    assert all(one.vector.shape == (16,) for one in passages.values())


SWAPPING = """
import asyncio, itertools, sys
from pathlib import Path
from retriever_service.batch import Batch, EncodedPassage
from retriever_service.catalog import Catalog
from retriever_service.collection import Passage
from retriever_service.recovery import recover
from retriever_service.snapshots import activate, create_snapshot, drop_snapshot
import numpy as np

async def main(data_dir, start):
    catalog = Catalog(Path(data_dir))
    catalog.lock()
    collection = catalog.open("default")
    await collection.start()
    await recover(collection, None)
    for i in itertools.count(start):
        vector = np.random.default_rng(i).normal(size=16).astype(np.float32)
        await collection.write(Batch([EncodedPassage(Passage("p", "", f"text at {i}"), vector)]))
        snapshot = await create_snapshot(collection, str(i))
        print(f"made {snapshot.index_generation} {i}", flush=True)
        await activate(collection, snapshot.index_generation, None)
        print(f"active {snapshot.index_generation} {i}", flush=True)
        if i % 2 and len(collection.record.frozen) > 2:
            await drop_snapshot(collection, min(collection.record.frozen))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("num_rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
async def test_killed_at_random_moments_it_serves_what_it_acknowledged(open_retriever, upsert, tmp_path, num_rounds):
    active = 1
    async with open_retriever() as retriever:
        await upsert(retriever, [Passage("p", "", "text at start")])
    for round_ in range(num_rounds):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SWAPPING, tmp_path / "data", str(round_ * 1_000)),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        lines, enough = [], random.randint(1, 8)
        while len(lines) < enough and (line := await process.stdout.readline()):
            lines += re.findall(r"(made|active) (\d+) (\d+)", line.decode())
        await asyncio.sleep(random.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        lines += re.findall(r"(made|active) (\d+) (\d+)\n", (await process.stdout.read()).decode())
        assert await process.wait() == -signal.SIGKILL
        async with open_retriever() as retriever:
            served = await retriever.library.describe("default")
            number, version = map(int, lines[-1][1:])
            acknowledged = [int(number) for kind, number, _ in lines if kind == "active"]
            assert served.index_generation in (number, *acknowledged[-1:], *([active] if not acknowledged else []))
            assert (await texts(retriever, text="text", index_generation=number))["p"] == f"text at {version}"
            for snapshot in await retriever.maintenance.list_snapshots("default"):
                await activate(retriever, snapshot.index_generation)  # Verifies the checksum.
                active = snapshot.index_generation
