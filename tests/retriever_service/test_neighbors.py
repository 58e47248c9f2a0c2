import pytest

from retriever_service.collection import CollectionRequest, FieldType, Passage, Span
from retriever_service.filters import Equals, Not
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.selection import Selection
from retriever_service.store import Store


def book(num=7, source="book.md", **metadata):
    """Passages of one source, each two characters after the one before; ids run against the order."""
    return [
        Passage(f"{source}-{num - i}", "", f"sentence number{i} of {source}", source, Span(2 * i, 2 * i + 3), metadata)
        for i in range(num)
    ]


@pytest.fixture
async def retriever(open_retriever, upsert):
    async with open_retriever() as retriever:
        await retriever.library.create(CollectionRequest("k", filterable_fields={"kind": FieldType.STRING}))
        await upsert(retriever, [*book(), *book(source="other.md")], "k")
        yield retriever


async def beside(retriever, text, num_neighbors=2, **options):
    given = RetrievalOptions("k", top_k=1, num_neighbors=num_neighbors, **options)
    (hit,) = (await retriever.retrieve([QueryInput(text)], given)).results[0]
    return hit.passage.text.split()[1], [passage.text.split()[1] for passage in hit.neighbors]


async def test_neighbors_stand_in_source_order_without_the_hit_and_end_with_the_source(retriever):
    assert await beside(retriever, "number3 book.md") == ("number3", ["number1", "number2", "number4", "number5"])
    assert await beside(retriever, "number0 book.md") == ("number0", ["number1", "number2"])
    assert await beside(retriever, "number6 book.md", 5) == ("number6", [f"number{i}" for i in range(1, 6)])
    assert await beside(retriever, "number3 book.md", 0) == ("number3", [])


async def test_passages_without_a_place_go_by_id_among_themselves(retriever, upsert):
    await upsert(retriever, [Passage(f"x{i}", "", f"loose word{i} notes", "book.md") for i in range(4)], "k")
    assert await beside(retriever, "loose word1 notes", 1) == ("word1", ["word0", "word2"])
    assert await beside(retriever, "number0 book.md", 1) == ("number0", ["number1"])


async def test_passages_without_a_source_have_no_neighbors(retriever, upsert):
    await upsert(retriever, [Passage(f"free{i}", "", f"lone piece{i}") for i in range(3)], "k")
    assert await beside(retriever, "lone piece1") == ("piece1", [])


async def test_passages_that_start_alike_are_told_apart_by_id(retriever, upsert):
    same = [Passage(f"s{i}", "", f"twin same{i}", "twins.md", Span(0, 5)) for i in range(3)]
    await upsert(retriever, same, "k")
    assert await beside(retriever, "twin same1", 1) == ("same1", ["same0", "same2"])


async def test_a_neighbor_outside_the_filter_is_left_out_and_none_comes_instead(retriever, upsert):
    secret = Passage("secret", "", "sentence number99 hidden", "book.md", Span(7, 8), {"kind": "secret"})
    await upsert(retriever, [secret], "k")
    hidden = Not(Equals("kind", "secret"))
    assert (await beside(retriever, "number3 book.md", 1))[1] == ["number2", "number99"]
    assert (await beside(retriever, "number3 book.md", 1, filter=hidden))[1] == ["number2"]


async def test_deleted_neighbors_are_gone_and_a_pinned_generation_keeps_its_own(retriever):
    snapshot = await retriever.maintenance.create_snapshot("k", "before")
    await retriever.delete("k", Selection(ids=["book.md-5"]))  # number2.
    assert (await beside(retriever, "number3 book.md", 1))[1] == ["number1", "number4"]
    pinned = await beside(retriever, "number3 book.md", 1, index_generation=snapshot.index_generation)
    assert pinned[1] == ["number2", "number4"]


@pytest.mark.parametrize("place", ["(p.start_char, p.id) < (5, 'a')", "p.start_char IS NULL AND p.id > 'a'"])
def test_looking_beside_a_passage_does_not_walk_its_source(tmp_path, place):
    store = Store.create(tmp_path / "store.sqlite")
    sql = (
        f"EXPLAIN QUERY PLAN SELECT p.row FROM passages p WHERE p.source = 'x' AND {place} ORDER BY p.start_char, p.id"
    )
    (step,) = [row[3] for row in store.connection().execute(sql)]
    assert "INDEX passages_in_order" in step
    assert "start_char" in step
    store.close()


def test_a_file_of_an_earlier_release_gets_the_index(tmp_path):
    store = Store.create(tmp_path / "store.sqlite")
    store.connection().execute("DROP INDEX passages_in_order")
    store.close()
    again = Store(tmp_path / "store.sqlite")
    names = {name for (name,) in again.connection().execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "passages_in_order" in names
    again.close()
