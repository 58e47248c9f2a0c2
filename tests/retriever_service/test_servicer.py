"""The service over real gRPC: what callers send and what they are told."""

import grpc
import grpc.aio
import numpy as np
import pytest

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc
from retriever_service.__main__ import RETRIEVER_SERVICE, build_service
from retriever_service.config import RetrieverConfig
from serving.status import error_from_rpc
from serving.testing import test_server as run_server

DOCUMENTS = {"fr": "paris is the capital of france", "de": "berlin is the capital of germany"}


@pytest.fixture
async def stub(open_retriever):
    async with (
        open_retriever() as retriever,
        run_server(build_service(RetrieverConfig(), retriever)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        stub.send_raw = channel.unary_unary(f"/{RETRIEVER_SERVICE}/Retrieve")
        yield stub


@pytest.fixture
async def filled(stub):
    await upsert(stub, *passages(DOCUMENTS))
    return stub


def passages(texts, **rest):
    return [wire.PassageUpsert(passage=common.Passage(id=id_, text=text, **rest)) for id_, text in texts.items()]


async def upsert(stub, *items, **first):
    return await stub.Upsert(iter([wire.UpsertRequest(passages=items, **first)]))


def asking(text="capital of france", *, vector=None, **options):
    query = wire.Query(text=text, vector=vector)
    return wire.RetrieveRequest(queries=[query], options=common.RetrievalOptions(**options))


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = error_from_rpc(raised.value)
    return raised.value.code(), error.reason, error.field, error.message


async def test_retrieve_gives_passages_scores_prior_provenance_and_timings(filled):
    response = await filled.Retrieve(asking(include_vectors=True))
    best = response.results[0].passages[0]
    assert (best.passage.id, best.rank, best.passage.text) == ("fr", 1, DOCUMENTS["fr"])
    assert best.HasField("dense_score")
    assert best.HasField("lexical_score")
    assert sum(np.exp(hit.log_prior) for hit in response.results[0].passages) == pytest.approx(1)
    assert (best.vector.dim, len(best.vector.data)) == (16, 64)
    origin = response.provenance
    assert (origin.collection, origin.index_generation, origin.sequence, origin.encoder) == ("default", 1, 2, "fake")
    assert len(origin.index_digest) == 64
    stages = {timing.stage for timing in response.timings}
    assert {common.STAGE_ENCODE, common.STAGE_SEARCH, common.STAGE_FETCH, common.STAGE_TOTAL} <= stages


async def test_a_batch_reports_each_querys_status(filled):
    request = wire.RetrieveRequest(queries=[wire.Query(text="capital"), wire.Query(text=" ")])
    good, bad = (await filled.Retrieve(request)).results
    assert (good.status.code, len(good.passages)) == (0, 2)
    assert (bad.status.code, bad.status.reason, len(bad.passages)) == (3, "EMPTY", 0)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "said"),
    [
        (asking(top_k=0), "INVALID_ARGUMENT", "TOO_SMALL", "options.top_k is 0"),
        (asking(top_k=101), "INVALID_ARGUMENT", "TOO_LARGE", "1 to 100"),
        (asking(""), "INVALID_ARGUMENT", "EMPTY", "query.text is empty"),
        (asking("x" * 8_193), "INVALID_ARGUMENT", "TOO_LARGE", "8,193 bytes; the limit is 8,192"),
        (
            asking(collection="nowhere"),
            "NOT_FOUND",
            "COLLECTION_NOT_FOUND",
            "no collection 'nowhere'; there are: default",
        ),
        (asking(vector=common.Vector(data=b"\0" * 12, dim=3)), "INVALID_ARGUMENT", "WRONG_DIMENSION", "has 16"),
        (asking(vector=common.Vector(data=b"\0" * 64, dim=16)), "INVALID_ARGUMENT", "INVALID", "zero vector"),
        (asking(vector=common.Vector(data=b"\0" * 7, dim=16)), "INVALID_ARGUMENT", "WRONG_DIMENSION", "7 bytes"),
        (asking(num_neighbors=6), "INVALID_ARGUMENT", "TOO_LARGE", "options.num_neighbors is 6"),
        (asking(diversity={"relevance": 1.5}), "INVALID_ARGUMENT", "INVALID", "options.diversity.relevance"),
        (asking(rerank={"method": 1, "num_candidates": 101}), "INVALID_ARGUMENT", "TOO_LARGE", "num_candidates is 101"),
        (asking(rerank={"method": 1}), "FAILED_PRECONDITION", "RERANKER_MISSING", "--reranker"),
        (asking(index_generation=9), "NOT_FOUND", "INDEX_GENERATION_NOT_FOUND", "active one is 1"),
        (asking(min_sequence=99), "FAILED_PRECONDITION", "SEQUENCE_NOT_WRITTEN", "min_sequence 99"),
        (asking(temperature=-1), "INVALID_ARGUMENT", "INVALID", "options.temperature"),
        (asking(mode=77), "INVALID_ARGUMENT", "INVALID", "options.mode has the unknown value 77"),
        (wire.RetrieveRequest(), "INVALID_ARGUMENT", "TOO_SMALL", "queries is 0"),
        (wire.RetrieveRequest(queries=[wire.Query(text="x")] * 129), "INVALID_ARGUMENT", "TOO_LARGE", "1 to 128"),
    ],
)
async def test_bad_queries_are_refused_with_field_and_limit(filled, request_, code, reason, said):
    status, why, _, message = await refusal(filled.Retrieve(request_))
    assert (status.name, why) == (code, reason)
    assert said in message


async def test_text_that_is_not_utf8_is_refused_naming_the_field(filled):
    request = asking("capital").SerializeToString().replace(b"capital", b"cap\xfftal")
    status, reason, field, _ = await refusal(filled.send_raw(request))
    assert (status.name, reason, field) == ("INVALID_ARGUMENT", "NOT_UTF8", "queries.text")


async def test_an_unknown_metadata_filter_is_refused_naming_the_declared_fields(filled):
    condition = common.Filter(equals=common.FieldEquals(field="year", value=common.Value(int_value=1)))
    status, reason, field, message = await refusal(filled.Retrieve(asking(filter=condition)))
    assert (status.name, reason, field) == ("INVALID_ARGUMENT", "UNDECLARED_FIELD", "filter")
    assert "id, source" in message


async def test_embed_gives_the_vectors_that_retrieve_takes(filled):
    reply = await filled.Embed(wire.EmbedRequest(texts=["capital of germany"]))
    assert (reply.encoder.name, reply.encoder.dim, reply.vectors[0].dim) == ("fake", 16, 16)
    by_vector = await filled.Retrieve(asking("", vector=reply.vectors[0]))
    by_text = await filled.Retrieve(asking("capital of germany", mode=common.RETRIEVAL_MODE_DENSE))
    assert [p.score for p in by_vector.results[0].passages] == [p.score for p in by_text.results[0].passages]
    assert not by_vector.results[0].passages[0].HasField("lexical_score")
    half = await filled.Embed(wire.EmbedRequest(texts=["x"], dtype=common.DATA_TYPE_BFLOAT16))
    assert len(half.vectors[0].data) == 32


async def test_embed_refuses_no_texts_and_blank_ones(stub):
    assert (await refusal(stub.Embed(wire.EmbedRequest())))[0].name == "INVALID_ARGUMENT"
    assert (await refusal(stub.Embed(wire.EmbedRequest(texts=["fine", " "]))))[2] == "texts"


async def test_upsert_reports_every_item_in_order_and_reads_its_writes(stub):
    big = "x" * 65_537
    items = passages({"a": "one two", "b": "one two", "c": big, "d": "three"})
    items.append(wire.PassageUpsert(passage=common.Passage(id="e", text="vec"), vector=common.Vector(dim=3)))
    response = await upsert(stub, *items)
    statuses = [(status.id, status.status.code, status.duplicate_of) for status in response.statuses]
    assert statuses == [("a", 0, ""), ("b", 6, "a"), ("c", 3, ""), ("d", 0, ""), ("e", 3, "")]
    assert "65,537 bytes; the limit is 65,536" in response.statuses[2].status.message
    assert (response.num_inserted, response.num_duplicates) == (2, 1)
    found = await stub.Retrieve(asking("three", min_sequence=response.sequence, top_k=1))
    assert found.results[0].passages[0].passage.id == "d"
    assert (await upsert(stub, *items)).num_unchanged == 2


async def test_an_upsert_stream_replaces_its_sources_in_one_go(stub):
    await upsert(stub, *passages({"s-1": "one", "s-2": "two"}, source="s"))
    messages = [
        wire.UpsertRequest(replace_sources=True, sources=[wire.Source(name="s", digest="abc")]),
        wire.UpsertRequest(passages=passages({"s-2": "two"}, source="s")),
        wire.UpsertRequest(passages=passages({"s-3": "three"}, source="s")),
    ]
    response = await stub.Upsert(iter(messages))
    assert (response.num_deleted, response.num_unchanged, response.num_inserted) == (1, 1, 1)
    listed = await stub.ListSources(wire.ListSourcesRequest(prefix="s"))
    assert [(s.name, s.digest, s.num_passages) for s in listed.sources] == [("s", "abc", 2)]
    assert listed.sources[0].updated_at.seconds > 0


async def test_an_upsert_stream_cannot_change_its_collection(stub):
    messages = [wire.UpsertRequest(), wire.UpsertRequest(collection="other")]
    assert (await refusal(stub.Upsert(iter(messages))))[2] == "collection"


async def test_an_upsert_message_of_too_many_passages_is_refused(stub):
    items = passages({str(i): f"text {i}" for i in range(1_025)})
    assert (await refusal(upsert(stub, *items)))[:3] == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE", "passages")


async def test_get_list_and_delete_passages(filled):
    got = await filled.GetPassages(wire.GetPassagesRequest(ids=["de", "zz", "fr"], include_vectors=True))
    assert [p.id for p in got.passages] == ["de", "fr"]
    assert (list(got.missing_ids), len(got.vectors)) == (["zz"], 2)
    page = await filled.ListPassages(wire.ListPassagesRequest(page_size=1))
    rest = await filled.ListPassages(wire.ListPassagesRequest(page_size=1, page_token=page.next_page_token))
    assert ([p.id for p in page.passages], [p.id for p in rest.passages]) == (["de"], ["fr"])
    assert (page.num_total, rest.next_page_token) == (2, "")
    assert (await filled.Delete(wire.DeleteRequest(ids=wire.IdList(ids=["fr"])))).num_deleted == 1
    assert (await filled.ListPassages(wire.ListPassagesRequest())).num_total == 1
    assert (await refusal(filled.Delete(wire.DeleteRequest())))[2] == "selector"


async def test_collections_are_created_described_configured_listed_and_dropped(stub):
    field = wire.FilterableField(name="year", type=common.FIELD_TYPE_INT)
    settings = wire.CollectionSettings(name="news", filterable_fields=[field])
    first = await stub.CreateCollection(wire.CreateCollectionRequest(settings=settings))
    again = await stub.CreateCollection(wire.CreateCollectionRequest(settings=settings))
    assert (first.created, again.created) == (True, False)
    filled_in = first.collection.settings
    assert (filled_in.metric, filled_in.language, filled_in.encoder) == (wire.METRIC_COSINE, "english", "fake")
    assert (filled_in.temperature, filled_in.fusion.lexical_weight) == (0.05, 0.02)
    change = wire.ConfigureCollectionRequest(collection="news", temperature=0.2)
    assert (await stub.ConfigureCollection(change)).collection.settings.temperature == 0.2
    described = (await stub.DescribeCollection(wire.DescribeCollectionRequest(collection="news"))).collection
    assert (described.num_passages, described.index_kind, described.settings.temperature) == (0, "exact", 0.2)
    listed = await stub.ListCollections(wire.ListCollectionsRequest())
    assert [collection.settings.name for collection in listed.collections] == ["news"]
    await stub.DropCollection(wire.DropCollectionRequest(collection="news"))
    assert (await refusal(stub.DropCollection(wire.DropCollectionRequest(collection="news"))))[0].name == "NOT_FOUND"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (wire.CollectionSettings(name="Bad Name"), "INVALID_ARGUMENT"),
        (wire.CollectionSettings(name="../x"), "INVALID_ARGUMENT"),
        (wire.CollectionSettings(name="a", language="klingon"), "INVALID_ARGUMENT"),
        (wire.CollectionSettings(name="a", temperature=0), "INVALID_ARGUMENT"),
        (
            wire.CollectionSettings(name="a", filterable_fields=[wire.FilterableField(name="id", type=1)]),
            "INVALID_ARGUMENT",
        ),
        (wire.CollectionSettings(name="a", filterable_fields=[wire.FilterableField(name="x")]), "INVALID_ARGUMENT"),
        (wire.CollectionSettings(name="a", lexical_scoring=77), "INVALID_ARGUMENT"),
        (wire.CollectionSettings(name="a", index_factory="HNSWX"), "INVALID_ARGUMENT"),
        (wire.CollectionSettings(name="a", encoder="/etc"), "FAILED_PRECONDITION"),
    ],
)
async def test_collections_that_cannot_be_are_refused(stub, settings, code):
    status, *_ = await refusal(stub.CreateCollection(wire.CreateCollectionRequest(settings=settings)))
    assert status.name == code


async def test_info_names_encoder_collections_and_every_limit(filled):
    info = await filled.GetInfo(wire.RetrieverServiceGetInfoRequest())
    limits = {limit.name: (limit.value, limit.unit) for limit in info.service.limits}
    assert limits["max_top_k"] == (100, "items")
    assert limits["max_text_bytes"] == (65_536, "bytes")
    assert (info.service.service, info.encoder.name, info.role) == ("retriever", "fake", 1)
    assert [collection.num_passages for collection in info.collections] == [2]


def serves(servicer, name):
    """Whether a class of ours, and not the stub alone, has the method."""
    return any(name in vars(kind) for kind in servicer.__mro__ if kind.__module__.startswith("retriever_service"))


async def test_every_rpc_of_the_contract_is_served():
    from retriever_service.servicer import RetrieverServicer

    methods = wire.DESCRIPTOR.services_by_name["RetrieverService"].methods
    assert [method.name for method in methods if not serves(RetrieverServicer, method.name)] == []


async def test_too_much_work_at_once_is_refused_at_the_door(open_retriever):
    config = RetrieverConfig(admission={"max_items": 2, "max_tokens": 1_000})
    async with (
        open_retriever() as retriever,
        run_server(build_service(config, retriever)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        call = stub.Retrieve(wire.RetrieveRequest(queries=[wire.Query(text="x")] * 3))
        assert (await refusal(call))[1] == "TOO_LARGE"
