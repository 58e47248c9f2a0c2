"""The contract of every backend: collections come, stay over restarts, are shared, refuse other encoders, and go."""

import pytest

from retriever_service.backends.catalog import RemoteCatalog
from retriever_service.collection import CollectionRequest, FieldType, LexicalScoring, Passage, Source
from retriever_service.filters import Equals, Range
from retriever_service.fusion import FusionChange
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from serving.errors import FailedPrecondition, InvalidRequest, NotFound, Unimplemented
from tests.retriever_service.conftest import FakeEncoder

CITY = Passage("p", "France", "paris is the capital of france", "geo.md", metadata={"kind": "city"})
REQUEST = CollectionRequest("my-col_1", filterable_fields={"kind": FieldType.STRING}, temperature=0.5)


async def top(retriever, text, collection="my-col_1", **options):
    found = await retriever.retrieve([QueryInput(text)], RetrievalOptions(collection, **options))
    return [hit.passage.id for hit in found.results[0]]


async def test_a_collection_is_made_described_configured_and_dropped(retriever, upsert, backend):
    assert await retriever.library.create(REQUEST)
    assert not await retriever.library.create(REQUEST)
    with pytest.raises(FailedPrecondition, match="other settings"):
        await retriever.library.create(CollectionRequest("my-col_1", temperature=0.1))
    await upsert(retriever, [CITY], "my-col_1")
    await retriever.library.configure("my-col_1", 0.25, FusionChange(lexical_weight=0.5))
    info = await retriever.library.describe("my-col_1")
    assert (info.settings.temperature, info.settings.fusion.lexical_weight) == (0.25, 0.5)
    assert (info.num_passages, info.num_sources, info.index_generation) == (1, 1, 1)
    assert info.created_at <= info.updated_at
    assert info.index_kind.split(" ")[0] == {"local": "exact"}.get(backend, backend.split("-")[0])
    assert info.measured_recall == 1
    assert await retriever.library.drop("my-col_1") == 1
    with pytest.raises(NotFound):
        await top(retriever, "paris")
    assert await retriever.library.create(REQUEST)
    assert await top(retriever, "paris") == []  # Nothing of the former one.


async def test_everything_is_there_after_a_restart(open_retriever, upsert):
    async with open_retriever() as first:
        await first.library.create(REQUEST)
        await upsert(first, [CITY], "my-col_1", sources=[Source("geo.md", "g1")])
        await first.library.configure("my-col_1", 0.25, FusionChange())
        before = await first.library.describe("my-col_1")
        state = await first.state_of("my-col_1")
    async with open_retriever() as second:
        assert await second.library.describe("my-col_1") == before
        assert await second.state_of("my-col_1") == state
        assert await top(second, "paris", filter=Equals("kind", "city")) == ["p"]
        (source,) = (await second.list_sources("my-col_1", "", "", 10)).items
        assert (source.digest, source.num_passages) == ("g1", 1)


async def test_vectors_of_another_encoder_are_refused(open_retriever, upsert):
    async with open_retriever() as first:
        await upsert(first, [CITY])
    async with open_retriever(FakeEncoder("other", "d2")) as second:
        with pytest.raises(FailedPrecondition, match="holds vectors of encoder 'fake'") as refused:
            await top(second, "paris", "default")
        assert refused.value.reason == "ENCODER_MISMATCH"
        with pytest.raises(FailedPrecondition, match="holds vectors of encoder 'fake'"):
            await upsert(second, [Passage("q", "", "rome")])


async def test_undeclared_fields_are_refused(retriever):
    await retriever.library.create(REQUEST)
    with pytest.raises(InvalidRequest, match="filterable in this collection are"):
        await top(retriever, "paris", filter=Equals("year", 3))


async def test_two_retrievers_see_each_others_writes(open_retriever, make_catalog, upsert):
    if not isinstance(make_catalog(), RemoteCatalog):
        pytest.skip("one process owns a data directory")
    async with open_retriever() as one, open_retriever() as other:
        await one.library.create(REQUEST)
        result = await upsert(one, [CITY], "my-col_1")
        assert await top(other, "paris", min_sequence=result.sequence) == ["p"]  # It had not heard of the collection.
        rome = Passage("r", "Italy", "rome is the capital of italy", "geo.md")
        result = await upsert(other, [rome, Passage("copy", CITY.title, CITY.text)], "my-col_1")
        assert result.items[1].outcome.duplicate_of == "p"
        assert await top(one, "rome", top_k=1, min_sequence=result.sequence) == ["r"]
        await one.library.drop("my-col_1")
        await one.library.create(REQUEST)
        with pytest.raises(FailedPrecondition, match="made anew by another retriever"):
            await top(other, "rome", min_sequence=result.sequence + 1)


async def test_what_a_backend_lacks_it_says_with_its_name(retriever, backend):
    await retriever.library.create(REQUEST)
    if backend != "local":
        with pytest.raises(Unimplemented, match="sentence_vectors"):
            await retriever.library.create(CollectionRequest("s", sentence_vectors=True))
    if backend.startswith("milvus"):
        with pytest.raises(Unimplemented, match="range on the string field 'kind'"):
            await top(retriever, "paris", filter=Range("kind", (("less_than", "z"),)))
        with pytest.raises(Unimplemented, match="TF-IDF"):
            await retriever.library.create(CollectionRequest("t", lexical_scoring=LexicalScoring.TF_IDF))


async def test_a_missing_lexical_stage_is_refused_only_when_it_is_asked_for(retriever, upsert, backend):
    if backend != "milvus" or retriever.library._catalog._abilities.lexical:
        pytest.skip("this backend has a lexical stage")
    await upsert(retriever, [CITY])
    assert await top(retriever, "paris", "default") == ["p"]
    with pytest.raises(Unimplemented, match="no lexical stage"):
        await top(retriever, "paris", "default", mode=Mode.HYBRID)
