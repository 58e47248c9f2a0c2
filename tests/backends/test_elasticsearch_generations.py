"""What is asked of Elasticsearch to freeze, clone, swap and scan; unverified against a server (fake_elasticsearch)."""

import asyncio
from dataclasses import replace

import pytest

pytest.importorskip("elasticsearch")

from retriever_service.backends.ledger import change_ledger, ledger_from, read_ledger
from retriever_service.backends.remote import Record, RecordKind
from retriever_service.collection import Passage, Source
from retriever_service.selection import Selection
from serving.errors import FailedPrecondition
from tests.backends.fake_elasticsearch import VALIDATORS

PASSAGES = [Passage(f"p{i}", "", f"paris number{i}", "s") for i in range(3)]


@pytest.fixture
def backend():
    return "elasticsearch-fake"


@pytest.fixture
async def filled(retriever, upsert):
    await upsert(retriever, PASSAGES, sources=[Source("s", "d")])
    return retriever


@pytest.fixture
async def collection(filled):
    async with filled.library.using("default") as collection:
        yield collection


def index(fake, collection, number):
    return fake.index(collection.server._generation("default", number))


def pointed_at(fake, collection):
    return fake.aliases[collection.server._alias("default")].rsplit(".", 1)[1]


async def test_a_snapshot_is_a_clone_of_a_blocked_index_and_the_alias_is_swapped_in_one_request(
    filled, collection, fake_elasticsearch
):
    fake_elasticsearch.requests.clear()
    await filled.maintenance.create_snapshot("default", "first")
    asked = fake_elasticsearch.requests
    order = [part for _, path, _ in asked for part in ("_block", "_clone", "_aliases") if part in path]
    assert order == ["_block", "_clone", "_aliases"]
    ((_, _, (body,)),) = [one for one in asked if one[1].endswith("_aliases")]
    assert [next(iter(action)) for action in body["actions"]] == ["remove", "add"]
    assert pointed_at(fake_elasticsearch, collection) == "g2"
    assert index(fake_elasticsearch, collection, 1).is_blocked
    assert not index(fake_elasticsearch, collection, 2).is_blocked
    await filled.maintenance.activate_snapshot("default", 1)
    assert pointed_at(fake_elasticsearch, collection) == "g1"


async def test_an_index_that_is_not_green_is_not_cloned_and_takes_writes_again(
    filled, collection, fake_elasticsearch, upsert
):
    index(fake_elasticsearch, collection, 1).health = "yellow"
    with pytest.raises(FailedPrecondition, match=r"g1' is yellow, and Elasticsearch clones green ones alone"):
        await filled.maintenance.create_snapshot("default", "first")
    await upsert(filled, [Passage("q", "", "rome")])
    assert (await filled.list_passages("default", None, "", 10)).num_total == 4
    assert len(await filled.maintenance.list_snapshots("default")) == 1


async def test_a_purge_opens_a_frozen_index_and_blocks_it_again(filled, collection, fake_elasticsearch):
    await filled.maintenance.create_snapshot("default", "first")
    await filled.maintenance.purge("default", Selection(ids=["p1"]))
    for number in (1, 2):
        frozen = index(fake_elasticsearch, collection, number)
        assert frozen.is_blocked == (number == 1)
        assert frozen.documents.keys() == {"p0", "p2"}


async def test_a_scan_is_of_one_moment_and_closes_it(filled, collection, upsert, fake_elasticsearch):
    pages = collection.store.scan(2, with_vectors=True)
    seen = next(pages)
    await filled.delete("default", Selection(ids=["p2"]))
    await upsert(filled, [Passage("p9", "", "rome")])
    seen += [one for page in pages for one in page]
    assert [one.passage.id for one in seen] == ["p0", "p1", "p2"]
    assert all(len(one.vector) for one in seen)
    assert not fake_elasticsearch.views
    for _, _, (body,) in [one for one in fake_elasticsearch.requests if one[1] == "/_search"]:
        VALIDATORS["search"].validate(body)


async def test_a_write_that_meets_a_held_head_waits_and_goes_to_the_new_one(filled, collection, upsert):
    """Another retriever has frozen the head and has not told of the new one yet."""
    held = change_ledger(collection.store, lambda ledger: replace(ledger.leased("generations", "x"), is_held=True))
    assert held.is_held
    writing = asyncio.create_task(upsert(filled, [Passage("q", "", "rome")]))
    await asyncio.sleep(0.3)
    assert not writing.done()
    change_ledger(collection.store, lambda ledger: replace(ledger.released("generations", "x"), is_held=False))
    await writing
    assert (await filled.list_passages("default", None, "", 10)).num_total == 4


async def test_what_a_dead_retriever_held_back_goes_on(filled, collection, upsert, monkeypatch):
    monkeypatch.setattr("retriever_service.backends.ledger.LEASE_SECONDS", 0.3)
    change_ledger(collection.store, lambda ledger: replace(ledger.leased("generations", "x"), is_held=True))
    collection.server.freeze("default", 1)
    await upsert(filled, [Passage("q", "", "rome")])
    assert (await filled.list_passages("default", None, "", 10)).num_total == 4
    assert not read_ledger(collection.store).is_held


async def test_generations_are_changed_by_one_retriever_at_a_time(filled, collection):
    change_ledger(collection.store, lambda ledger: ledger.leased("generations", "another"))
    with pytest.raises(FailedPrecondition, match="another retriever is changing the index generations") as refused:
        await filled.maintenance.create_snapshot("default", "first")
    assert refused.value.reason == "GENERATIONS_CHANGING"


async def test_a_ledger_from_before_there_were_generations_is_read(filled, collection):
    value = read_ledger(collection.store).to_value()
    former = {name: value[name] for name in ("settings", "store_id", "last", "sequence", "created_at", "updated_at")}
    assert ledger_from(former).numbers == [1]
    collection.store.put_record(RecordKind.LEDGER, "", Record(former))
    await filled.maintenance.create_snapshot("default", "first")
    assert [one.index_generation for one in await filled.maintenance.list_snapshots("default")] == [2, 1]
