import asyncio

import numpy as np
import pytest

from retriever_service.batch import Outcome
from retriever_service.collection import CollectionRequest, FieldType, Metric, Passage, Source
from retriever_service.encoder import PassageText
from retriever_service.filters import Equals
from retriever_service.fusion import FusionChange, FusionMethod
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from retriever_service.selection import Selection
from retriever_service.upserting import UpsertItem
from serving.deadline import Deadline, enter_request
from serving.errors import Deadline as DeadlineExceeded
from serving.errors import FailedPrecondition, InvalidRequest, NotFound

FACTS = [
    Passage("fr", "France", "paris is the capital of france", "geo.md", metadata={"kind": "city"}),
    Passage("de", "Germany", "berlin is the capital of germany", "geo.md", metadata={"kind": "city"}),
    Passage("ws", "Baseball", "the dodgers won the world series in 2020", "sport.md", metadata={"kind": "event"}),
]


@pytest.fixture
async def retriever(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)
        yield retriever


async def ask(retriever, text, **options):
    found = await retriever.retrieve([QueryInput(text)], RetrievalOptions(**options))
    return found.results[0]


async def names(retriever, text, **options):
    return [hit.passage.id for hit in await ask(retriever, text, **options)]


async def test_finds_the_passage_in_every_mode(retriever):
    for mode in (None, *Mode):
        assert (await names(retriever, "capital of germany", mode=mode, top_k=1)) == ["de"]


async def test_every_hybrid_hit_has_both_scores_and_a_prior_that_sums_to_one(retriever):
    hits = await ask(retriever, "who won the world series")
    assert len(hits) == 3  # Fewer than top_k: never padded.
    assert all(hit.dense_score is not None and hit.lexical_score is not None for hit in hits)
    assert sum(np.exp(hit.log_prior) for hit in hits) == pytest.approx(1)
    fused = [hit.dense_score + 0.02 * hit.lexical_score for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(fused)
    assert fused == sorted(fused, reverse=True)


async def test_a_stage_that_the_mode_leaves_out_has_no_score(retriever):
    assert (await ask(retriever, "capital", mode=Mode.DENSE))[0].lexical_score is None
    assert (await ask(retriever, "capital", mode=Mode.LEXICAL))[0].dense_score is None


async def test_dense_scores_are_the_exact_cosine_of_stored_vectors(retriever, fake_encoder):
    hits = await ask(retriever, "capital of france", mode=Mode.DENSE, include_vectors=True)
    query = fake_encoder.vector("capital of france").astype(np.float64)
    for hit in hits:
        assert hit.dense_score == pytest.approx(float(hit.vector.astype(np.float64) @ query), abs=1e-12)


async def test_rrf_orders_only_and_its_prior_comes_from_the_dense_score(retriever):
    hits = await ask(retriever, "capital of france", fusion=FusionChange(FusionMethod.RRF), temperature=0.5)
    assert hits[0].score == pytest.approx(2 / 61)
    logits = np.array([hit.dense_score for hit in hits]) / 0.5
    assert [hit.log_prior for hit in hits] == pytest.approx(logits - np.log(np.exp(logits).sum()))


async def test_min_score_drops_hits_before_the_prior(retriever):
    everything = await ask(retriever, "capital of france")
    best = await ask(retriever, "capital of france", min_score=everything[0].score)
    assert [(hit.passage.id, hit.log_prior) for hit in best] == [("fr", 0.0)]


async def test_a_query_with_text_and_vector_uses_each_for_its_stage(retriever, fake_encoder):
    fake_encoder.encoded.clear()
    query = QueryInput("world series", fake_encoder.vector("capital of germany"))
    found = await retriever.retrieve([query], RetrievalOptions())
    by_id = {hit.passage.id: hit for hit in found.results[0]}
    assert by_id["ws"].lexical_score > 0 == by_id["de"].lexical_score
    assert by_id["de"].dense_score > by_id["ws"].dense_score
    assert fake_encoder.encoded == []


async def test_a_vector_alone_is_dense_and_cannot_be_lexical(retriever, fake_encoder):
    query = QueryInput(vector=2 * fake_encoder.vector("capital of germany"))
    found = await retriever.retrieve([query], RetrievalOptions())
    assert found.results[0][0].lexical_score is None
    assert found.results[0][0].dense_score <= 1.0 + 1e-6  # Cosine: the query is normalised, too.
    with pytest.raises(InvalidRequest, match="lexical retrieval needs"):
        await retriever.retrieve([query], RetrievalOptions(mode=Mode.LEXICAL))


async def test_each_query_of_a_batch_succeeds_or_fails_by_itself(retriever):
    queries = [QueryInput("capital of france"), QueryInput("  "), QueryInput("x", np.ones(3, np.float32))]
    found = await retriever.retrieve(queries, RetrievalOptions(top_k=1))
    assert found.results[0][0].passage.id == "fr"
    assert [error.reason for error in found.results[1:]] == ["EMPTY", "WRONG_DIMENSION"]


async def test_a_query_of_a_batch_finds_what_it_finds_alone(retriever):
    texts = ["capital of france", "who won the world series", "capital of germany"]
    for mode in Mode:
        options = RetrievalOptions(mode=mode, num_candidates=1, top_k=1)
        found = await retriever.retrieve([QueryInput(text) for text in texts], options)
        assert list(found.results) == [
            await ask(retriever, text, mode=mode, num_candidates=1, top_k=1) for text in texts
        ]
        assert len({hits[0].passage.id for hits in found.results}) == 3


async def test_an_empty_collection_finds_nothing(retriever):
    await retriever.library.create(CollectionRequest("empty"))
    for mode in Mode:
        assert await ask(retriever, "anything", collection="empty", mode=mode) == ()


async def test_an_unknown_collection_names_those_there_are(retriever):
    with pytest.raises(NotFound, match=r"'nowhere'.*default"):
        await ask(retriever, "x", collection="nowhere")


async def test_only_the_default_collection_makes_itself(open_retriever, upsert):
    async with open_retriever() as retriever:
        with pytest.raises(NotFound):
            await ask(retriever, "x")
        with pytest.raises(NotFound):
            await upsert(retriever, FACTS, "other")
        assert (await upsert(retriever, FACTS)).num(Outcome.INSERTED) == 3


async def test_writes_are_read_at_once_and_by_sequence(retriever, upsert):
    result = await upsert(retriever, [Passage("nl", "", "amsterdam is the capital of the netherlands")])
    assert await names(retriever, "amsterdam netherlands", top_k=1, min_sequence=result.sequence) == ["nl"]
    found = await retriever.retrieve([QueryInput("x")], RetrievalOptions())
    assert found.origin.applied.sequence == result.sequence


async def test_a_sequence_that_was_never_written_is_refused(retriever):
    with pytest.raises(FailedPrecondition, match="min_sequence 999"):
        await ask(retriever, "x", min_sequence=999)


async def test_waiting_for_a_sequence_ends_with_the_deadline(retriever, monkeypatch):
    async with retriever.library.using("default") as collection:
        monkeypatch.setattr(collection.head, "_apply", lambda: collection.head.applied)  # The indexes stay behind.
    written = await retriever.delete("default", Selection(ids=["fr"]))

    async def wait():
        enter_request(Deadline.after(0.05), "r")
        await ask(retriever, "x", min_sequence=written.sequence)

    with pytest.raises(DeadlineExceeded, match=f"change {written.sequence}"):
        await asyncio.create_task(wait())


async def test_deleted_passages_are_found_by_no_later_search(retriever):
    assert (await retriever.delete("default", Selection(ids=["de", "absent"]))).num_deleted == 1
    assert "de" not in await names(retriever, "berlin capital of germany")
    assert (await retriever.delete("default", Selection(sources=["sport.md"]))).num_deleted == 1
    assert await names(retriever, "world series") == ["fr"]


async def test_filters_decide_before_top_k(open_retriever, upsert):
    async with open_retriever() as retriever:
        await retriever.library.create(CollectionRequest("k", filterable_fields={"kind": FieldType.STRING}))
        await upsert(retriever, FACTS, "k")
        kept = await names(retriever, "capital of france", collection="k", filter=Equals("kind", "event"), top_k=2)
        assert kept == ["ws"]
        assert await names(retriever, "capital", collection="k", filter=Equals("source", "no.md")) == []
        assert (await retriever.delete("k", Selection(matching=Equals("kind", "city")))).num_deleted == 2


async def test_the_index_generation_can_only_be_the_active_one(retriever):
    assert await names(retriever, "capital of france", index_generation=1, top_k=1) == ["fr"]
    with pytest.raises(NotFound, match="no index generation 7"):
        await ask(retriever, "x", index_generation=7)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"top_k": 0}, "options.top_k"),
        ({"top_k": 101}, "options.top_k"),
        ({"num_candidates": 1_001}, "options.num_candidates"),
        ({"temperature": 0.0}, "options.temperature"),
        ({"min_score": float("nan")}, "options.min_score"),
        ({"filter": Equals("kind", "x")}, "filter"),
    ],
)
async def test_options_out_of_range_are_refused_by_name(retriever, options, field):
    with pytest.raises(InvalidRequest) as raised:
        await ask(retriever, "x", **options)
    assert raised.value.field == field


async def test_unchanged_and_duplicate_content_is_not_encoded_again(retriever, upsert, fake_encoder):
    fake_encoder.encoded.clear()
    result = await upsert(retriever, [*FACTS, Passage("copy", "France", FACTS[0].text, "other.md")])
    assert [result.num(outcome) for outcome in Outcome] == [0, 0, 3, 1]
    assert fake_encoder.encoded == []


async def test_bad_items_fail_alone_and_leave_their_source_to_be_ingested_again(retriever, upsert, fake_encoder):
    items = [
        Passage("ok", "", "fine text", "a.md"),
        Passage("", "", "no id", "b.md"),
        Passage("big", "", "x" * 65_537, "b.md"),
        UpsertItem(Passage("v", "", "short vector"), np.ones(3, np.float32)),
        UpsertItem(Passage("z", "", "zero vector"), np.zeros(16, np.float32)),
    ]
    sources = [Source("a.md", "da"), Source("b.md", "db")]
    result = await upsert(retriever, items, sources=sources)
    fields = [item.error and item.error.field for item in result.items]
    assert fields == [None, "passage.id", "passage.text", "vector", "vector"]
    page = await retriever.list_sources("default", "", "", 10)
    assert {s.name: s.digest for s in page.items if s.name in ("a.md", "b.md")} == {"a.md": "da", "b.md": ""}


async def test_a_declared_field_must_hold_its_type(open_retriever, upsert):
    async with open_retriever() as retriever:
        await retriever.library.create(CollectionRequest("k", filterable_fields={"year": FieldType.INT}))
        result = await upsert(retriever, [Passage("p", "", "text", metadata={"year": "1998"})], "k")
        assert result.items[0].error.field == "passage.metadata[year]"


async def test_replacing_a_source_encodes_only_what_is_new(retriever, upsert, fake_encoder):
    fake_encoder.encoded.clear()
    moved = Passage("fr-moved", "France", FACTS[0].text, "geo.md")
    new = Passage("it", "Italy", "rome is the capital of italy", "geo.md")
    result = await upsert(retriever, [moved, new], sources=[Source("geo.md", "d2")], replaces_sources=True)
    assert result.num_deleted == 1
    assert fake_encoder.encoded == [PassageText(new.text, "Italy")]
    assert set(await names(retriever, "capital of")) == {"fr-moved", "it", "ws"}


async def test_replacing_without_sources_is_refused(retriever, upsert):
    with pytest.raises(InvalidRequest, match="replace_sources"):
        await upsert(retriever, FACTS, replaces_sources=True)


async def test_restarted_it_serves_what_was_there(open_retriever, upsert, fake_encoder):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)
        await retriever.delete("default", Selection(ids=["ws"]))
        before = await ask(retriever, "capital of germany")
        digest = (await retriever.library.describe("default")).index_digest
    fake_encoder.encoded.clear()
    async with open_retriever() as retriever:
        assert await ask(retriever, "capital of germany") == before
        assert (await retriever.library.describe("default")).index_digest == digest
    assert all(not isinstance(item, PassageText) for item in fake_encoder.encoded)


async def test_one_data_directory_has_one_owner(open_retriever):
    async with open_retriever():
        with pytest.raises(FailedPrecondition, match="in use by another retriever"):
            async with open_retriever():
                pass


async def test_another_encoder_does_not_serve_the_collection_but_everything_else(open_retriever, upsert, other_encoder):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)
    async with open_retriever(other_encoder) as retriever:
        for call in (ask(retriever, "x"), upsert(retriever, FACTS), retriever.embed([PassageText("x")], "default")):
            with pytest.raises(FailedPrecondition, match=r"'fake'.*'other'") as raised:
                await call
            assert raised.value.reason == "ENCODER_MISMATCH"
        await retriever.library.create(CollectionRequest("new"))
        await upsert(retriever, FACTS, "new")
        assert await names(retriever, "capital of germany", collection="new", top_k=1) == ["de"]
        assert (await retriever.get_passages("default", ["fr"], with_vectors=True))["fr"].vector is not None


async def test_a_collection_may_name_its_own_encoder(open_retriever, upsert, other_encoder):
    async with open_retriever(others=[other_encoder]) as retriever:
        await retriever.library.create(CollectionRequest("own", encoder="other", metric=Metric.INNER_PRODUCT))
        await upsert(retriever, FACTS, "own")
        assert len([item for item in other_encoder.encoded if isinstance(item, PassageText)]) == 3
        assert (await retriever.library.describe("own")).encoder.identity.digest == "d2"


async def test_creating_again_is_harmless_and_with_other_settings_refused(retriever):
    assert await retriever.library.create(CollectionRequest("c", temperature=0.5))
    assert not await retriever.library.create(CollectionRequest("c", temperature=0.5))
    with pytest.raises(FailedPrecondition, match="other settings"):
        await retriever.library.create(CollectionRequest("c"))


async def test_configured_scoring_lasts(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)
        await retriever.library.configure("default", 0.7, FusionChange(lexical_weight=0.5))
    async with open_retriever() as retriever:
        settings = (await retriever.library.describe("default")).settings
        assert (settings.temperature, settings.fusion.lexical_weight, settings.fusion.dense_weight) == (0.7, 0.5, 1.0)


async def test_a_dropped_collection_is_gone_for_good(open_retriever, upsert, tmp_path):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)
        assert await retriever.library.drop("default") == 3
        with pytest.raises(NotFound):
            await ask(retriever, "x")
        assert list((tmp_path / "data" / "collections").iterdir()) == []
        await upsert(retriever, FACTS[:1])
        assert await names(retriever, "capital") == ["fr"]


async def test_a_broken_collection_hinders_no_other(open_retriever, upsert, tmp_path):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)
        await retriever.library.create(CollectionRequest("bad"))
    (store,) = (tmp_path / "data" / "collections" / "bad").glob("generations/*/store.sqlite")
    store.write_bytes(b"not a database")
    async with open_retriever() as retriever:
        assert await names(retriever, "capital of germany", top_k=1) == ["de"]
        with pytest.raises(FailedPrecondition, match="could not be opened"):
            await ask(retriever, "x", collection="bad")
        await retriever.library.drop("bad")


async def test_searches_beside_writes_never_fail_nor_return_what_is_deleted(retriever, upsert):
    async def write():
        for i in range(8):
            await upsert(retriever, [Passage(f"n{i}", "", f"capital number {i}"), Passage("same", "", f"version {i}")])
            await retriever.delete("default", Selection(ids=[f"n{i}"]))

    async def search(done):
        count = 0
        while not done.done():
            hits = await ask(retriever, "capital number version", top_k=10)
            assert len({hit.passage.id for hit in hits}) == len(hits) >= 3
            count += 1
        return count

    writing = asyncio.create_task(write())
    counts = await asyncio.gather(*(search(writing) for _ in range(3)))
    await writing
    assert min(counts) > 0
    assert {"fr", "de", "ws", "same"} == set(await names(retriever, "capital", top_k=10))
