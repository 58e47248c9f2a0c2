"""The contract of every backend: what writes do, and that reads see them."""

import numpy as np
import pytest

from retriever_service.batch import Outcome, Patch
from retriever_service.collection import CollectionRequest, FieldType, Passage, Source
from retriever_service.filters import Equals, In
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.selection import Selection
from retriever_service.upserting import UpsertItem
from serving.errors import FailedPrecondition

FACTS = [
    Passage("fr", "France", "paris is the capital of france", "geo.md", metadata={"kind": "city", "n": 1}),
    Passage("de", "Germany", "berlin is the capital of germany", "geo.md", metadata={"kind": ("city", "old")}),
    Passage("ws", "Baseball", "the dodgers won the world series in 2020", "sport.md", metadata={"x": 1.0, "y": True}),
]
FIELDS = {"kind": FieldType.STRING, "n": FieldType.INT}
NASTY = ['q"uote', "back\\slash", "new\nline", "né, 漢字 🙂", "per%cent_", "a' or 'x", "{brace}", " space "]


@pytest.fixture
async def filled(retriever, upsert):
    await retriever.library.create(CollectionRequest("default", filterable_fields=FIELDS))
    await upsert(retriever, FACTS, sources=[Source("geo.md", "g1"), Source("sport.md", "s1")])
    return retriever


async def ids(retriever, matching=None):
    page = await retriever.list_passages("default", matching, "", 100)
    assert page.num_total == len(page.items)
    return [passage.id for passage in page.items]


async def digests(retriever):
    return {one.name: one.digest for one in (await retriever.list_sources("default", "", "", 100)).items}


async def test_what_is_written_comes_back_as_it_was(filled):
    found = await filled.get_passages("default", ["fr", "de", "ws", "absent"], with_vectors=True)
    assert found.keys() == {"fr", "de", "ws"}
    for fact in FACTS:
        stored = found[fact.id].passage
        assert stored.metadata == fact.metadata
        assert [type(value) for value in stored.metadata.values()] == [type(value) for value in fact.metadata.values()]
        assert (stored.title, stored.text, stored.source) == (fact.title, fact.text, fact.source)
        assert np.linalg.norm(found[fact.id].vector) == pytest.approx(1)


async def test_each_passage_has_its_outcome_and_content_is_kept_once(filled, upsert, encoder):
    encoder.encoded.clear()
    changed = Passage("de", "Germany", "bonn was the capital of west germany", "geo.md")
    moved = Passage("fr", "France", FACTS[0].text, "geo.md", metadata={"kind": "town"})
    copy = Passage("copy", "Baseball", FACTS[2].text, "other.md")
    result = await upsert(filled, [FACTS[2], changed, moved, copy, Passage("new", "", "madrid", "geo.md")])
    assert [item.outcome.outcome for item in result.items] == [
        Outcome.UNCHANGED,
        Outcome.UPDATED,
        Outcome.UPDATED,
        Outcome.DUPLICATE,
        Outcome.INSERTED,
    ]
    assert result.items[3].outcome.duplicate_of == "ws"
    assert len(encoder.encoded) == 2  # What is stored is not encoded again.
    assert await ids(filled) == ["de", "fr", "new", "ws"]


async def test_within_a_stream_the_first_of_equal_content_is_kept(retriever, upsert):
    twins = [Passage(f"p{i}", "", f"text {i // 2}") for i in range(200)]  # More than one batch, not refreshed between.
    result = await upsert(retriever, twins + twins)
    assert result.num(Outcome.INSERTED) == 100
    assert result.num(Outcome.UNCHANGED) == 100
    assert result.num(Outcome.DUPLICATE) == 200
    assert len(await ids(retriever)) == 100


async def test_a_given_vector_replaces_the_stored_one(filled, upsert, encoder):
    vector = encoder.vector("something else")
    result = await upsert(filled, [UpsertItem(FACTS[0], vector)])
    assert result.items[0].outcome.outcome is Outcome.UPDATED
    found = await filled.get_passages("default", ["fr"], with_vectors=True)
    assert found["fr"].vector.tobytes() == vector.tobytes()


async def test_searches_see_a_write_by_its_sequence(filled, upsert):
    result = await upsert(filled, [Passage("it", "Italy", "rome is the capital of italy")])
    options = RetrievalOptions(min_sequence=result.sequence, top_k=1)
    found = await filled.retrieve([QueryInput("rome italy")], options)
    assert found.results[0][0].passage.id == "it"
    assert found.origin.applied.sequence >= result.sequence
    with pytest.raises(FailedPrecondition, match="beyond the last change"):
        await filled.retrieve([QueryInput("rome")], RetrievalOptions(min_sequence=result.sequence + 1_000))


async def test_the_state_changes_with_every_write_and_only_then(filled, upsert):
    before = await filled.state_of("default")
    await upsert(filled, [FACTS[0]])
    assert await filled.state_of("default") == before
    await upsert(filled, [Passage("it", "", "rome")])
    after = await filled.state_of("default")
    await filled.delete("default", Selection(ids=["it"]))
    assert len({before, after, await filled.state_of("default")}) == 3


async def test_passages_are_deleted_by_id_by_source_and_by_filter(filled):
    assert (await filled.delete("default", Selection(ids=["fr", "absent"]))).num_deleted == 1
    assert await ids(filled) == ["de", "ws"]
    assert (await filled.delete("default", Selection(sources=["sport.md"]))).num_deleted == 1
    assert (await digests(filled)).keys() == {"geo.md"}
    assert (await filled.delete("default", Selection(matching=Equals("kind", "old")))).num_deleted == 1
    assert await ids(filled) == []
    assert (await filled.retrieve([QueryInput("capital")], RetrievalOptions())).results == ((),)


async def test_deleting_nothing_changes_nothing(filled):
    sequence = (await filled.library.describe("default")).sequence
    assert (await filled.delete("default", Selection())).num_deleted == 0
    assert (await filled.library.describe("default")).sequence == sequence


async def test_a_source_is_replaced_as_a_whole(filled, upsert):
    kept = Passage("fr-2", "France", FACTS[0].text, "geo.md")  # Only its place has moved.
    result = await upsert(filled, [kept], sources=[Source("geo.md", "g2")], replaces_sources=True)
    assert result.num_deleted == 1
    assert await ids(filled) == ["fr-2", "ws"]
    assert await digests(filled) == {"geo.md": "g2", "sport.md": "s1"}


async def test_a_source_whose_content_left_with_another_is_no_longer_complete(filled, upsert):
    copy = Passage("copy", "Baseball", FACTS[2].text, "other.md")
    await upsert(filled, [copy], sources=[Source("other.md", "o1")])
    assert (await digests(filled))["other.md"] == "o1"
    await filled.delete("default", Selection(ids=["ws"]))
    assert (await digests(filled))["other.md"] == ""
    assert (await upsert(filled, [copy])).items[0].outcome.outcome is Outcome.INSERTED


async def test_metadata_is_patched_without_touching_text(filled):
    patch = Patch({"kind": "town"}, frozenset({"n"}))
    written = await filled.maintenance.patch_metadata("default", Selection(matching=Equals("kind", "city")), patch)
    assert written.num_patched == 2
    assert await ids(filled, Equals("kind", "town")) == ["de", "fr"]
    found = await filled.get_passages("default", ["fr"], with_vectors=False)
    assert found["fr"].passage.metadata == {"kind": "town"}
    assert found["fr"].passage.text == FACTS[0].text


async def test_a_purge_erases_and_says_how_much(filled):
    assert (await filled.maintenance.purge("default", Selection(sources=["geo.md"]))).num_purged == 2
    assert await ids(filled) == ["ws"]


async def test_any_id_source_and_value_works(filled, upsert):
    passages = [Passage(text, text, f"text {i}", text, metadata={"kind": text}) for i, text in enumerate(NASTY)]
    result = await upsert(filled, passages, sources=[Source(text, "d") for text in NASTY])
    assert result.num(Outcome.INSERTED) == len(NASTY)
    assert (await filled.get_passages("default", NASTY, with_vectors=False)).keys() == set(NASTY)
    for text in NASTY:
        assert await ids(filled, Equals("kind", text)) == [text]
        assert await ids(filled, In("source", (text,))) == [text]
        assert [one.num_passages for one in (await filled.list_sources("default", text, "", 9)).items] == [1]
    assert (await filled.delete("default", Selection(ids=NASTY))).num_deleted == len(NASTY)


async def test_listing_pages_in_the_order_of_bytes(filled, upsert):
    names = ["b", "B", "a", "é", "Z", "a-b", "ab", "🙂", "漢"]
    await upsert(filled, [Passage(name, "", f"text {name}", f"src/{name}") for name in names])
    collected, after = [], ""
    while True:
        page = await filled.list_passages("default", None, after, 4)
        assert page.num_total == len(names) + len(FACTS)
        collected += [passage.id for passage in page.items]
        after = page.next_after
        if not after:
            break
    assert collected == sorted([*names, "fr", "de", "ws"], key=str.encode)
    first = await filled.list_sources("default", "src/", "", 5)
    rest = await filled.list_sources("default", "src/", first.next_after, 5)
    assert first.num_total == len(names)
    assert [one.name for one in first.items + rest.items] == sorted((f"src/{name}" for name in names), key=str.encode)
