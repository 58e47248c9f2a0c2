import pytest

from protos.rag.v1 import common_pb2
from tests.gateway.asking import answer, ask, hit


async def test_items_are_ranked_by_the_mass_of_their_passages_over_all_that_is_liked(house):
    house.retriever.found = {
        "space": [hit("a1", 0.6, source="a"), hit("b1", 0.4, source="b")],
        "love": [hit("b2", 0.5, source="b"), hit("b1", 0.3, source="b"), hit("c1", 0.2, source="c")],
    }
    request = ask("", "recommendation", turns=[("user", "love"), ("assistant", "noted"), ("user", "space")])
    got = await answer(house, request)
    assert [(item.name, round(item.probability, 6)) for item in got.items] == [("b", 0.6), ("a", 0.3), ("c", 0.1)]
    why = [got.citations[place.index].retrieved.passage.id for place in got.items[0].citations]
    assert why == ["b1", "b2"]
    assert [round(place.posterior, 4) for place in got.items[0].citations] == [0.5833, 0.4167]
    assert (got.text, got.confidence) == ("b\na\nc", pytest.approx(0.6))
    assert got.finish_reason == common_pb2.FINISH_REASON_UNSPECIFIED
    assert house.generator.script.seen == house.generator.scored == []
    assert house.retriever.script.seen[0].request.options.top_k == 20
    assert sum(cited.posterior for cited in got.citations) == pytest.approx(1)


async def test_earlier_turns_weigh_less_where_asked_and_the_wish_most(house):
    house.retriever.found = {name: [hit(name, 1.0, source=name)] for name in ("wish", "new", "old")}
    history = [("user", "old"), ("user", "new")]
    got = await answer(house, ask("wish", "recommendation", turns=history, history={"turn_discount": 0.5}))
    assert [(item.name, round(item.probability, 4)) for item in got.items] == [
        ("wish", 0.5714), ("new", 0.2857), ("old", 0.1429)]  # fmt: skip


async def test_liked_sources_are_asked_with_their_passages_and_never_recommended(house):
    house.retriever.sources["liked"] = [
        common_pb2.Passage(id="l1", source="liked", text="x" * 9000, metadata={"film": {"string_value": "Liked"}})
    ]
    house.retriever.found["x" * 8192] = [
        hit("a", 0.5, film="Liked"), hit("b", 0.3, film="Other"), hit("c", 0.2)]  # fmt: skip
    options = {"liked_sources": ["liked"], "item_field": "film"}
    retrieval = common_pb2.RetrievalOptions(filter={"equals": {"field": "id", "value": {"string_value": "z"}}})
    got = await answer(house, ask("", "recommendation", recommendation=options, retrieval=retrieval))
    assert [(item.name, item.probability) for item in got.items] == [("Other", pytest.approx(1.0))]
    both = house.retriever.script.seen[0].request.options.filter.all_of.filters
    assert both[0] == retrieval.filter
    left_out = getattr(getattr(both[1], "not"), "in")
    assert (left_out.field, [each.string_value for each in left_out.values]) == ("source", ["liked"])


async def test_nothing_found_is_no_recommendation(house):
    house.retriever.num_passages = 0
    got = await answer(house, ask("wish", "recommendation"))
    assert (got.finish_reason, len(got.items)) == (common_pb2.FINISH_REASON_NO_PASSAGES, 0)
