"""Passages are found by their best sentence, too, where their collection keeps vectors of sentences."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from retriever_service import schema
from retriever_service.collection import CollectionRequest, EncoderIdentity, Metric, Passage
from retriever_service.fusion import FusionChange, FusionMethod
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from retriever_service.selection import Selection
from retriever_service.upserting import UpsertItem
from serving.errors import FailedPrecondition
from tests.retriever_service.traces import traces

SENTENCES = ["The harbour froze early.", "Ducks moved upstream.", "Nobody sold any ice."]
MANY = Passage("many", "Winter", " ".join(SENTENCES))
OTHER = Passage("other", "Winter", "Ducks rarely visit towns that nobody knows")


def half(vector):
    return vector.astype(np.float16).astype(np.float32)


def expected(encoder, query, passage, sentences):
    """A third of the whole's cosine, two thirds of the best sentence's."""
    vector = encoder.vector(query)
    whole = encoder.vector(f"{passage.title}\n{passage.text}") @ vector
    best = max(half(encoder.vector(f"{passage.title}\n{each}")) @ vector for each in sentences)
    return (whole + 2 * best) / 3


async def dense(retriever, query, collection="default", **options):
    options = RetrievalOptions(collection, Mode.DENSE, **options)
    found = await retriever.retrieve([QueryInput(query)], options)
    return {hit.passage.id: hit.dense_score for hit in found.results[0]}


@pytest.fixture
async def retriever(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, [MANY, OTHER])
        yield retriever


async def test_the_dense_score_is_a_third_of_the_whole_and_two_thirds_of_its_best_sentence(retriever, fake_encoder):
    scores = await dense(retriever, "ducks moved")
    assert list(scores) == ["many", "other"]
    assert scores["many"] == pytest.approx(expected(fake_encoder, "ducks moved", MANY, SENTENCES), abs=1e-6)
    whole = fake_encoder.vector("ducks moved") @ fake_encoder.vector(f"{OTHER.title}\n{OTHER.text}")
    assert scores["other"] == pytest.approx(whole, abs=1e-6)  # One sentence is the whole.


async def test_each_of_several_queries_has_its_own_best_sentence(retriever, fake_encoder):
    queries = ["harbour froze", "sold ice"]
    found = await retriever.retrieve([QueryInput(query) for query in queries], RetrievalOptions(mode=Mode.DENSE))
    for query, hits in zip(queries, found.results, strict=True):
        scores = {hit.passage.id: hit.dense_score for hit in hits}
        assert scores["many"] == pytest.approx(expected(fake_encoder, query, MANY, SENTENCES), abs=1e-6)


async def test_ranks_of_the_dense_stage_are_by_that_score(retriever):
    options = RetrievalOptions(mode=Mode.HYBRID, fusion=FusionChange(FusionMethod.RRF, lexical_weight=0.0))
    found = await retriever.retrieve([QueryInput("ducks moved")], options)
    assert [hit.score for hit in found.results[0]] == pytest.approx([1 / 61, 1 / 62])
    assert [hit.passage.id for hit in found.results[0]] == ["many", "other"]


async def test_a_collection_can_do_without(retriever, upsert, fake_encoder):
    await retriever.library.create(CollectionRequest("plain", sentence_vectors=False))
    fake_encoder.encoded.clear()
    await upsert(retriever, [MANY], "plain")
    assert len(fake_encoder.encoded) == 1
    scores = await dense(retriever, "ducks moved", "plain")
    whole = fake_encoder.vector("ducks moved") @ fake_encoder.vector(f"{MANY.title}\n{MANY.text}")
    assert scores["many"] == pytest.approx(whole, abs=1e-6)


async def test_passages_sent_with_their_vectors_have_none_of_their_sentences(retriever, upsert, fake_encoder):
    vector = fake_encoder.vector("something else")
    await upsert(retriever, [UpsertItem(MANY, vector)])
    scores = await dense(retriever, "ducks moved")
    assert scores["many"] == pytest.approx(vector @ fake_encoder.vector("ducks moved"), abs=1e-6)


async def test_equal_content_is_not_encoded_again_and_keeps_its_sentences(retriever, upsert, fake_encoder):
    before = await dense(retriever, "ducks moved")
    fake_encoder.encoded.clear()
    await upsert(retriever, [Passage("renamed", MANY.title, MANY.text)])  # A duplicate: the former one stays.
    await upsert(retriever, [Passage("many", MANY.title, MANY.text, metadata={"a": "b"})])
    assert fake_encoder.encoded == []
    assert await dense(retriever, "ducks moved") == before


async def test_a_purge_leaves_no_vector_of_a_sentence(retriever, fake_encoder, tmp_path):
    needles = [fake_encoder.vector(f"Winter\n{each}").astype("<f2").tobytes() for each in SENTENCES]
    assert {needle for _, needle in traces(tmp_path / "data", *needles)} == set(needles)
    await retriever.maintenance.create_snapshot("default", "with")
    await retriever.maintenance.purge("default", Selection(ids=["many"]))
    assert traces(tmp_path / "data", *needles) == []


async def test_deleted_passages_lose_their_sentences_and_changed_ones_get_new_ones(retriever, upsert, tmp_path):
    await upsert(retriever, [Passage("many", "Winter", "It rained. It stopped.")])
    await retriever.delete("default", Selection(ids=["other"]))
    (store,) = (tmp_path / "data").rglob("store.sqlite")
    with closing(sqlite3.connect(store)) as connection:
        held = connection.execute("SELECT row, length(vectors) FROM sentences").fetchall()
        rows = connection.execute("SELECT row FROM passages").fetchall()
    assert held == [(rows[0][0], 2 * 16 * 2)]


async def test_another_encoder_makes_sentences_of_its_own(open_retriever, upsert, fake_encoder):
    other = type(fake_encoder)("other", "d2", dim=24)
    async with open_retriever(others=[other]) as retriever:
        await upsert(retriever, [MANY])
        async for _ in retriever.maintenance.reencode("default", "other", activates=True):
            pass
        scores = await dense(retriever, "ducks moved")
        assert scores["many"] == pytest.approx(expected(other, "ducks moved", MANY, SENTENCES), abs=1e-6)


async def test_snapshots_keep_them(retriever, upsert):
    before = await dense(retriever, "ducks moved")
    number = (await retriever.maintenance.create_snapshot("default", "")).index_generation
    await upsert(retriever, [Passage("many", "Winter", "It rained. It stopped.")])
    assert await dense(retriever, "ducks moved", index_generation=number) == before


async def test_a_collection_of_an_earlier_release_stays_without(open_retriever, tmp_path, upsert):
    async with open_retriever() as retriever:
        await retriever.library.create(CollectionRequest("old", sentence_vectors=False))
        await upsert(retriever, [MANY], "old")
    for store in (tmp_path / "data").rglob("store.sqlite"):
        with closing(sqlite3.connect(store)) as connection:
            connection.execute("DROP TABLE sentences")
            connection.execute(
                "UPDATE meta SET value = json_remove(value, '$.sentence_vectors') WHERE key = 'settings'"
            )
            connection.execute("PRAGMA user_version = 1")
            connection.commit()
    async with open_retriever() as retriever:
        assert not await retriever.library.create(CollectionRequest("old"))
        with pytest.raises(FailedPrecondition, match="other settings"):
            await retriever.library.create(CollectionRequest("old", sentence_vectors=True))
        assert list(await dense(retriever, "ducks moved", "old")) == ["many"]
    assert schema.SCHEMA_VERSION == 2


def test_encoders_of_unbounded_scores_have_none_unless_asked_for():
    dpr = EncoderIdentity("dpr", "d", 16, is_normalising=False)
    assert not CollectionRequest("c").settle(dpr, sentence_vectors=True).sentence_vectors
    assert CollectionRequest("c", metric=Metric.COSINE).settle(dpr, sentence_vectors=True).sentence_vectors
    assert CollectionRequest("c", sentence_vectors=True).settle(dpr).sentence_vectors
