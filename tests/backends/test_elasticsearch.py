"""What is sent to Elasticsearch, what is made of its replies; unverified against a server: see fake_elasticsearch."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("elasticsearch")

from retriever_service.backends.elasticsearch.errors import error_of, send_bulk
from retriever_service.backends.elasticsearch.mapping import documents_index
from retriever_service.backends.elasticsearch.queries import compile_filter, inner_product, stage_body
from retriever_service.backends.elasticsearch.server import ElasticsearchOptions, ElasticsearchServer
from retriever_service.backends.ledger import Ledger, change_ledger
from retriever_service.backends.remote import StageQuery
from retriever_service.collection import CollectionRequest, EncoderIdentity, FieldType, LexicalScoring, Metric, Passage
from retriever_service.filters import AllOf, AnyOf, Equals, In, Not, Range
from retriever_service.options import QueryInput, RetrievalOptions
from serving.errors import FailedPrecondition, InvalidRequest, NotReady, Overloaded, PermissionDenied, Unauthenticated
from tests.backends.fake_elasticsearch import VALIDATORS, FakeElasticsearch

FIELDS = {"kind": FieldType.STRING, "n": FieldType.INT, "d": FieldType.DOUBLE, "seen": FieldType.BOOL}


@pytest.fixture(params=["elasticsearch-fake"])
def backend(request):
    return request.param


def settings(**changes):
    return CollectionRequest("c", filterable_fields=FIELDS, **changes).settle(EncoderIdentity("e", "digest", 8, True))


@pytest.fixture
def fake():
    server = FakeElasticsearch()
    yield server
    server.close()


def test_every_filter_has_its_query():
    given = AllOf(
        (
            Equals("kind", "a"),
            AnyOf((In("n", (1, 2)), Not(Equals("seen", True)))),
            Range("d", (("greater_or_equal", 1), ("less_than", 2.5))),
            In("source", ("s",)),
        )
    )
    compiled = compile_filter(given, FIELDS)
    assert compiled == {
        "bool": {
            "filter": [
                {"term": {"fields.kind": {"value": "a"}}},
                {
                    "bool": {
                        "should": [
                            {"terms": {"fields.n": [1, 2]}},
                            {"bool": {"must_not": [{"term": {"fields.seen": {"value": True}}}]}},
                        ],
                        "minimum_should_match": 1,
                    }
                },
                {"range": {"fields.d": {"gte": 1.0, "lt": 2.5}}},
                {"terms": {"source": ["s"]}},
            ]
        }
    }
    VALIDATORS["count"].validate({"query": compiled})


def test_both_stages_have_the_same_filter_and_quantised_candidates_are_scored_again():
    matching = {"term": {"fields.kind": {"value": "a"}}}
    dense = stage_body(StageQuery(10, np.ones(3, np.float32)), matching, is_quantised=True)
    assert dense == {
        "size": 10,
        "track_total_hits": False,
        "knn": {
            "field": "vector",
            "query_vector": [1.0, 1.0, 1.0],
            "k": 10,
            "num_candidates": 200,
            "filter": [matching],
            "rescore_vector": {"oversample": 3.0},
        },
    }
    lexical = stage_body(StageQuery(10, text="paris", among=(3, 4)), matching, is_quantised=True)
    assert lexical["query"] == {
        "bool": {
            "must": [{"match": {"words": {"query": "paris"}}}],
            "filter": [matching, {"terms": {"row": [3, 4]}}],
        }
    }
    for body in (dense, lexical):
        VALIDATORS["search"].validate(body)


@pytest.mark.parametrize("index_type", ["hnsw", "flat", "int8_hnsw", "bbq_hnsw"])
def test_an_index_says_its_options_and_whose_vectors_it_holds(index_type):
    body = documents_index(settings(), index_type, 2, 1)
    VALIDATORS["create"].validate(body)
    properties = body["mappings"]["properties"]
    assert properties["vector"]["index_options"] == {"type": index_type}
    assert properties["vector"]["similarity"] == "cosine"
    assert body["mappings"]["_meta"]["encoder_digest"] == "digest"
    assert properties["fields"]["properties"] == {
        "kind": {"type": "keyword"},
        "n": {"type": "long"},
        "d": {"type": "double"},
        "seen": {"type": "boolean"},
    }


def test_metric_language_and_scoring_are_the_collections():
    changed = settings(metric=Metric.INNER_PRODUCT, language="german", lexical_scoring=LexicalScoring.TF_IDF)
    body = documents_index(changed, "hnsw", 1, 0)
    VALIDATORS["create"].validate(body)
    assert body["mappings"]["properties"]["vector"]["similarity"] == "max_inner_product"
    assert body["mappings"]["properties"]["words"]["similarity"] == "tf_idf"
    assert body["settings"]["analysis"]["filter"] == {"stem": {"type": "snowball", "language": "German"}}
    plain = documents_index(settings(language="none"), "hnsw", 1, 0)
    assert plain["settings"]["analysis"]["analyzer"]["passage"]["filter"] == ["lowercase"]


@pytest.mark.parametrize("product", [-2.0, -0.5, 0.0, 0.25, 1.0, 7.0])
def test_scores_turn_back_into_inner_products(product):
    as_maximum = product + 1 if product >= 0 else 1 / (1 - product)
    assert inner_product(as_maximum, Metric.INNER_PRODUCT) == pytest.approx(product)
    assert inner_product((1 + product) / 2, Metric.COSINE) == pytest.approx(product)


async def test_a_request_is_one_msearch_and_one_more_for_scores_that_are_missing(retriever, upsert, fake_elasticsearch):
    await upsert(retriever, [Passage(f"p{i}", "", f"paris number{i}") for i in range(30)])
    fake_elasticsearch.requests.clear()
    queries = [QueryInput("paris"), QueryInput("number3 paris")]
    found = await retriever.retrieve(queries, RetrievalOptions(top_k=2, num_candidates=5))
    assert all(len(hits) == 2 for hits in found.results)
    asked = [(path.rsplit("/", 1)[1], bodies) for _, path, bodies in fake_elasticsearch.requests]
    searches = [bodies for name, bodies in asked if name == "_msearch"]
    assert {name for name, _ in asked} <= {"_msearch", "head"}  # The ledger is read once a second.
    assert 1 <= len(searches) <= 1 + len(queries)
    first = searches[0]
    assert ["knn" in body for body in first[1::2]] == [True, True, False, False]


async def test_what_is_refused_for_want_of_room_is_sent_again(retriever, upsert, fake_elasticsearch):
    fake_elasticsearch.bulk_refusals = 2
    result = await upsert(retriever, [Passage(f"p{i}", "", f"text {i}") for i in range(5)])
    assert result.sequence > 0
    assert (await retriever.list_passages("default", None, "", 10)).num_total == 5


def test_only_the_refused_operations_are_sent_again_and_not_for_ever():
    sent, waits = [], []

    def send(lines):
        sent.append([line["index"]["_id"] for line in lines])
        status = {"a": 200, "b": 429}
        return {
            "items": [
                {"index": {"_id": line["index"]["_id"], "status": status[line["index"]["_id"]]}} for line in lines
            ]
        }

    with pytest.raises(Overloaded, match="no room for 1 of 1 writes"):
        send_bulk(send, [[{"index": {"_id": "a"}}], [{"index": {"_id": "b"}}]], waits.append)
    assert sent == [["a", "b"]] + [["b"]] * 5
    assert waits == sorted(waits)


def test_an_item_that_fails_is_told_with_its_reason_and_an_absent_one_may_be_deleted():
    def send(lines):
        (line,) = lines
        ((action, meta),) = line.items()
        error = {"error": {"reason": "field [x] is wrong"}} if action == "index" else {}
        return {"items": [{action: {**meta, "status": 400 if action == "index" else 404, **error}}]}

    send_bulk(send, [[{"delete": {"_id": "gone"}}]])
    with pytest.raises(InvalidRequest, match=r"index of 'bad': field \[x\] is wrong"):
        send_bulk(send, [[{"index": {"_id": "bad"}}]])


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, Overloaded), (503, NotReady), (401, Unauthenticated), (403, PermissionDenied), (400, InvalidRequest)],
)
def test_failures_are_the_domains_errors(fake, status, error):
    server = ElasticsearchServer(ElasticsearchOptions(fake.url))
    fake.failures = [status] * 3  # The client itself tries some of them again.
    with pytest.raises(error, match="Elasticsearch"):
        server.connect()
    server.close()


def test_a_server_that_is_not_there_or_another_product_is_told():
    gone = FakeElasticsearch()
    gone.close()
    with pytest.raises(NotReady, match="cannot be reached"):
        ElasticsearchServer(ElasticsearchOptions(gone.url)).connect()
    assert isinstance(error_of(500, "boom"), Exception)


def test_a_product_that_only_looks_like_it_is_refused(fake, monkeypatch):
    handler = fake.server.RequestHandlerClass
    send_header = handler.send_header
    monkeypatch.setattr(
        handler, "send_header", lambda self, name, value: name == "X-Elastic-Product" or send_header(self, name, value)
    )
    with pytest.raises(FailedPrecondition, match="not an Elasticsearch server"):
        ElasticsearchServer(ElasticsearchOptions(fake.url)).connect()


async def test_half_an_answer_is_no_answer(retriever, upsert, fake_elasticsearch, monkeypatch):
    await upsert(retriever, [Passage("p", "", "paris")])
    whole = fake_elasticsearch.search
    monkeypatch.setattr(
        fake_elasticsearch, "search", lambda *args: whole(*args) | {"_shards": {"failed": 1}, "timed_out": False}
    )
    with pytest.raises(NotReady, match="a shard did not answer"):
        await retriever.retrieve([QueryInput("paris")], RetrievalOptions())


def test_ledgers_changed_at_once_by_two_keep_both_changes(fake):
    server = ElasticsearchServer(ElasticsearchOptions(fake.url))
    server.create(settings(), Ledger(settings(), "id").to_value())
    store = server.open(settings(), 1)
    interfered = []

    def change(ledger):
        if not interfered:
            interfered.append(change_ledger(store, lambda other: dataclasses.replace(other, last=other.last + 10)))
        return dataclasses.replace(ledger, last=ledger.last + 1)

    assert change_ledger(store, change).last == 11
    server.close()
