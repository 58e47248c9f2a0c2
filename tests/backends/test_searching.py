"""The contract of every backend: what searches find, in which order and with which scores; what filters let through."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from retriever_service.collection import CollectionRequest, FieldType, Metric, Passage, Span
from retriever_service.filters import AllOf, AnyOf, Equals, In, Not, Range
from retriever_service.fusion import FusionChange, FusionMethod
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from retriever_service.upserting import UpsertItem

FIELDS = {"year": FieldType.INT, "score": FieldType.DOUBLE, "kind": FieldType.STRING, "seen": FieldType.BOOL}
KINDS = ["a", "b", "é", "Z", ""]
WORDS = ["paris", "rome", "berlin", "river", "tower", "bridge", "museum"]
OPERATORS = {
    "greater_than": lambda value, bound: value > bound,
    "greater_or_equal": lambda value, bound: value >= bound,
    "less_than": lambda value, bound: value < bound,
    "less_or_equal": lambda value, bound: value <= bound,
}
NUM_PASSAGES, NUM_FILTERS = 60, 40
K1, B = 1.2, 0.75
INEXACT_BM25 = ("milvus-lite",)


def make_passages():
    rng = random.Random(0)
    for i in range(NUM_PASSAGES):
        metadata = {
            "year": rng.randrange(-3, 4),
            "score": rng.randrange(4) / 2,
            "kind": tuple(rng.choices(KINDS, k=2)) if i % 3 else rng.choice(KINDS),
            "seen": rng.random() < 0.5,
        }
        kept = {name: value for name, value in metadata.items() if rng.random() < 0.8}
        text = " ".join([f"unique{chr(97 + i // 26)}{chr(97 + i % 26)}", *rng.choices(WORDS, k=rng.randrange(2, 9))])
        yield Passage(f"id-{i:03}", "", text, f"s{i % 4}", Span(10 * i, 10 * i + 5), kept)


PASSAGES = list(make_passages())


@pytest.fixture
async def filled(retriever, upsert):
    request = CollectionRequest("default", filterable_fields=FIELDS, language="none")
    await retriever.library.create(request)
    await upsert(retriever, PASSAGES)
    return retriever


async def ask(retriever, text, vector=None, **options):
    found = await retriever.retrieve([QueryInput(text, vector)], RetrievalOptions(**options))
    return found.results[0]


def bm25(query):
    """Every passage's score as tantivy has it, by id."""
    words = {one.id: one.text.lower().split() for one in PASSAGES}
    average = sum(map(len, words.values())) / len(words)
    scores = dict.fromkeys(words, 0.0)
    for word in query.split():
        num_with = sum(word in one for one in words.values())
        idf = math.log(1 + (len(words) - num_with + 0.5) / (num_with + 0.5))
        for id_, of_passage in words.items():
            count = Counter(of_passage)[word]
            scores[id_] += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * len(of_passage) / average))
    return scores


async def test_dense_ranking_and_scores_are_those_of_brute_force(filled, encoder):
    query = encoder.vector("paris river").astype(np.float64)
    exact = {one.id: float(encoder.vector(one.text).astype(np.float64) @ query) for one in PASSAGES}
    hits = await ask(filled, "paris river", mode=Mode.DENSE, top_k=20)
    assert [hit.passage.id for hit in hits] == sorted(exact, key=lambda id_: -exact[id_])[:20]
    assert [hit.dense_score for hit in hits] == pytest.approx([exact[hit.passage.id] for hit in hits], abs=1e-12)


async def test_lexical_ranking_and_scores_are_those_of_bm25(filled, lexical, backend):
    exact = bm25("paris tower")
    hits = await ask(filled, "Which paris tower?", mode=Mode.LEXICAL, top_k=20, num_candidates=100)
    found = [hit.lexical_score for hit in hits]
    assert len(hits) == 20
    assert all(exact[hit.passage.id] > 0 for hit in hits)
    if backend in INEXACT_BM25:
        pytest.skip("milvus-lite scores with k1 = 1.5 and counts words among the filtered passages alone")
    assert found == pytest.approx([exact[hit.passage.id] for hit in hits], rel=1e-3)
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx(sorted(exact.values(), reverse=True)[:20], rel=1e-3)


async def test_hybrid_fuses_exact_scores_of_both_stages_whoever_found_a_passage(filled, lexical, encoder, backend):
    if backend in INEXACT_BM25:
        pytest.skip("see above")
    query, words = encoder.vector("museum bridge").astype(np.float64), bm25("museum bridge")
    fused = {one.id: float(encoder.vector(one.text) @ query) + 0.3 * words[one.id] for one in PASSAGES}
    change = FusionChange(lexical_weight=0.3)
    hits = await ask(filled, "museum bridge", fusion=change, top_k=8, num_candidates=8)
    for hit in hits:  # Few candidates: most were found by one stage alone.
        assert hit.score == pytest.approx(fused[hit.passage.id], rel=1e-3)
        assert hit.lexical_score == pytest.approx(words[hit.passage.id], rel=1e-3)
    everything = await ask(filled, "museum bridge", fusion=change, top_k=10, num_candidates=100)
    assert [hit.score for hit in everything] == pytest.approx(sorted(fused.values(), reverse=True)[:10], rel=1e-3)


async def test_reciprocal_ranks_come_from_the_stages_orders(filled, lexical):
    hits = await ask(filled, PASSAGES[7].text, fusion=FusionChange(FusionMethod.RRF), top_k=3)
    assert hits[0].passage.id == "id-007"
    assert hits[0].score == pytest.approx(2 / 61)


async def test_the_prior_follows_the_temperature(filled):
    for temperature in (0.05, 1.0):
        hits = await ask(filled, "paris", mode=Mode.DENSE, temperature=temperature)
        logits = np.array([hit.dense_score for hit in hits]) / temperature
        assert [hit.log_prior for hit in hits] == pytest.approx(logits - np.log(np.exp(logits).sum()))
    least = hits[1].score
    assert len(await ask(filled, "paris", mode=Mode.DENSE, min_score=least)) == 2


async def test_queries_of_one_request_do_not_mix(filled):
    queries = [QueryInput(PASSAGES[i].text) for i in range(12)]
    found = await filled.retrieve(queries, RetrievalOptions(top_k=1))
    assert [hits[0].passage.id for hits in found.results] == [f"id-{i:03}" for i in range(12)]


async def test_a_text_without_words_finds_by_its_vector_alone(filled, encoder):
    hits = await ask(filled, "?!", encoder.vector("unique5 paris"), top_k=3)
    assert len(hits) == 3
    assert all(not hit.lexical_score for hit in hits)


async def test_an_inner_product_is_not_normalised(retriever, upsert, encoder, backend):
    await retriever.library.create(CollectionRequest("default", metric=Metric.INNER_PRODUCT))
    vector = encoder.vector("long vector")
    items = [
        UpsertItem(Passage("long", "", "long"), 3 * vector),
        UpsertItem(Passage("short", "", "short"), vector / 2),
        UpsertItem(Passage("opposite", "", "opposite"), -2 * vector),
    ]
    await upsert(retriever, items)
    hits = await ask(retriever, "", vector, mode=Mode.DENSE, include_vectors=True)
    assert [hit.passage.id for hit in hits] == ["long", "short", "opposite"]
    assert [hit.dense_score for hit in hits] == pytest.approx([3, 0.5, -2], abs=1e-6)
    assert hits[2].vector.tobytes() == (-2 * vector).tobytes()


def random_filter(rng, depth, *, string_ranges):
    kind = rng.choice(("all", "any", "not", "test", "test") if depth else ("test",))
    if kind == "not":
        return Not(random_filter(rng, depth - 1, string_ranges=string_ranges))
    if kind != "test":
        several = tuple(random_filter(rng, depth - 1, string_ranges=string_ranges) for _ in range(rng.randrange(1, 4)))
        return AllOf(several) if kind == "all" else AnyOf(several)
    field = rng.choice([*FIELDS, "id", "source"])
    values = {
        "year": lambda: rng.randrange(-3, 4),
        "score": lambda: rng.randrange(8) / 4,
        "kind": lambda: rng.choice(KINDS),
        "seen": lambda: rng.random() < 0.5,
        "id": lambda: rng.choice(PASSAGES).id,
        "source": lambda: f"s{rng.randrange(6)}",
    }[field]
    test = rng.choice(("equals", "in", "range"))
    if test == "equals" or field == "seen":
        return Equals(field, values())
    if test == "in" or (field == "kind" and not string_ranges):
        return In(field, tuple(values() for _ in range(rng.randrange(1, 4))))
    return Range(field, tuple((name, values()) for name in rng.sample(sorted(OPERATORS), rng.randrange(1, 3))))


def matches(given, passage):
    match given:
        case Not(inner):
            return not matches(inner, passage)
        case AllOf(several):
            return all(matches(one, passage) for one in several)
        case AnyOf(several):
            return any(matches(one, passage) for one in several)
    stored = {"id": passage.id, "source": passage.source, **passage.metadata}.get(given.field)
    values = stored if isinstance(stored, tuple) else () if stored is None else (stored,)
    match given:
        case Equals(_, value):
            return value in values
        case In(_, wanted):
            return any(value in wanted for value in values)
    return any(all(OPERATORS[name](comparable(value), comparable(b)) for name, b in given.bounds) for value in values)


def comparable(value):
    return value.encode() if isinstance(value, str) else value


async def test_filters_leak_nothing_and_lose_nothing(filled, backend):
    rng = random.Random(1)
    for _ in range(NUM_FILTERS):
        given = random_filter(rng, 3, string_ranges=not backend.startswith("milvus"))
        expected = {one.id for one in PASSAGES if matches(given, one)}
        page = await filled.list_passages("default", given, "", 100)
        assert {one.id for one in page.items} == expected, given
        assert page.num_total == len(expected)
        hits = await ask(filled, "paris rome", filter=given, top_k=NUM_PASSAGES)
        assert {hit.passage.id for hit in hits} == expected, given


async def test_neighbours_come_in_their_sources_order_and_match_the_filter(filled):
    (hit,) = await ask(filled, PASSAGES[20].text, top_k=1, num_neighbors=2)
    assert [one.id for one in hit.neighbors] == ["id-012", "id-016", "id-024", "id-028"]
    given = Not(In("id", ("id-016", "id-028")))
    (hit,) = await ask(filled, PASSAGES[20].text, top_k=1, num_neighbors=2, filter=given)
    assert not {"id-016", "id-028"} & {one.id for one in hit.neighbors}
    assert {"id-012", "id-024"} <= {one.id for one in hit.neighbors}


async def test_diverse_hits_are_chosen_from_the_same_candidates(filled):
    plain = await ask(filled, "paris", top_k=5)
    diverse = await ask(filled, "paris", top_k=5, relevance=0.3)
    assert diverse[0].passage.id == plain[0].passage.id
    assert {one.passage.id for one in diverse} != {one.passage.id for one in plain}
