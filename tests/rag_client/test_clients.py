import asyncio
import contextlib

import numpy as np
import pytest

from protos.rag.v1 import common_pb2
from rag_client import (
    AsyncRagClient,
    DecodingModel,
    EmbeddedPassage,
    FinalAnswer,
    FinishReason,
    Fusion,
    Passage,
    PassagesRetrieved,
    Query,
    RagClient,
    RetrievalMode,
    Source,
    StageEnded,
    TextSpan,
    TokenDelta,
    errors,
    field,
)
from serving.errors import InvalidRequest, NotReady, Overloaded


class Awaited:
    """The synchronous client with the asynchronous one's face: each call runs in a thread of its own."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def iterate(*args, **kwargs):
            items = await asyncio.to_thread(method, *args, **kwargs)
            while (item := await asyncio.to_thread(next, items, None)) is not None:
                yield item

        async def call(*args, **kwargs):
            return await asyncio.to_thread(method, *args, **kwargs)

        return iterate if name in ("stream", "list_passages", "list_sources") else call


@pytest.fixture(params=["sync", "async"])
async def rag(request, server):
    if request.param == "async":
        async with AsyncRagClient(server.address) as client:
            yield client
    else:
        with RagClient(server.address) as client:
            yield Awaited(client)


async def test_an_answer_is_plain_values_with_cited_passages(rag, gateway):
    answer = await rag.answer("What is the capital of France?")
    assert (answer.text, answer.answer_id, answer.confidence) == ("Paris", "a1", 0.8)
    assert answer.finish_reason is FinishReason.END_OF_SEQUENCE
    assert answer.model is DecodingModel.RAG_SEQUENCE
    assert answer.is_answered
    (citation,) = answer.citations
    assert (citation.passage.source, citation.prior, citation.posterior) == ("capitals.md", 0.6, 0.9)
    assert citation.passage.span == TextSpan(3, 34)
    assert citation.passage.metadata == {"year": 2020, "tags": ("a", "b")}
    assert (citation.retrieved.dense_score, citation.retrieved.lexical_score) == (0.75, None)
    assert answer.provenance.index_generation == 7
    assert [(timing.stage, timing.duration_seconds) for timing in answer.timings] == [("total", 0.5)]
    assert gateway.requests[0].question == "What is the capital of France?"


async def test_every_option_reaches_its_place_in_the_request(rag, gateway):
    await rag.answer(
        "q",
        collection="wiki",
        top_k=3,
        mode=RetrievalMode.LEXICAL,
        filter=field("year") >= 2020,
        fusion=Fusion(method="rrf", rrf_k=20.0),
        model="rag_token",
        num_beams=4,
        stop=["."],
        min_confidence=0.25,
        leave_one_out=True,
    )
    options = gateway.requests[0].options
    assert (options.retrieval.collection, options.retrieval.top_k) == ("wiki", 3)
    assert options.retrieval.mode == common_pb2.RETRIEVAL_MODE_LEXICAL
    assert options.retrieval.filter.range.greater_or_equal.int_value == 2020
    assert (options.retrieval.fusion.method, options.retrieval.fusion.rrf_k) == (common_pb2.FUSION_METHOD_RRF, 20.0)
    assert options.decoding.model == common_pb2.DECODING_MODEL_RAG_TOKEN
    assert (options.decoding.num_beams, list(options.decoding.stop)) == (4, ["."])
    assert options.min_confidence == 0.25
    assert options.explanation.leave_one_out


async def test_what_is_not_given_is_not_sent(rag, gateway):
    await rag.answer("q", top_k=None)
    options = gateway.requests[0].options
    assert not options.retrieval.HasField("top_k")
    assert not options.HasField("min_confidence")


async def test_zero_is_sent_and_not_taken_for_a_default(rag, gateway):
    await rag.answer("q", top_k=0)
    assert gateway.requests[0].options.retrieval.HasField("top_k")


async def test_a_misspelt_option_is_refused(rag, gateway):
    with pytest.raises(TypeError, match="topk"):
        await rag.answer("q", topk=3)
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("options", "name"), [({"mode": "fuzzy"}, "mode"), ({"top_k": -1}, "top_k"), ({"num_beams": "x"}, "num_beams")]
)
async def test_a_value_that_the_wire_cannot_carry_is_refused_naming_the_field(rag, options, name):
    with pytest.raises(errors.InvalidRequest, match=name) as caught:
        await rag.answer("q", **options)
    assert caught.value.field == name


async def test_a_stream_gives_typed_events_in_order_and_skips_unknown_ones(rag):
    events = [event async for event in rag.stream("q")]
    assert [type(event) for event in events] == [StageEnded, PassagesRetrieved, TokenDelta, TokenDelta, FinalAnswer]
    assert events[0].timing.stage == "retrieve"
    assert events[1].passages[0].passage.id == "p1"
    assert events[2].text + events[3].text == "Paris"
    assert events[4].answer.text == "Paris"


async def test_retrieving_gives_ranked_passages(rag, gateway):
    found = await rag.retrieve("capital", top_k=2, mode="dense")
    assert [(passage.passage.id, passage.rank) for passage in found.passages] == [("p1", 1), ("p2", 2)]
    assert gateway.requests[0].options.mode == common_pb2.RETRIEVAL_MODE_DENSE


async def test_in_a_batch_each_query_fails_by_itself(rag):
    good, bad = await rag.retrieve_batch(["good", "bad"])
    assert len(good.passages) == 2
    assert isinstance(bad.error, errors.InvalidRequest)
    assert (bad.error.message, bad.error.reason) == ("query is blank", "BLANK")


async def test_a_single_failed_query_raises(rag):
    with pytest.raises(errors.InvalidRequest, match="query is blank"):
        await rag.retrieve("bad")


async def test_a_query_vector_travels_as_float32(rag, gateway):
    await rag.retrieve(Query("text", np.array([1.0, 2.0])))
    vector = gateway.requests[0].queries[0].vector
    assert (np.frombuffer(vector.data, "<f4").tolist(), vector.dim) == ([1.0, 2.0], 2)


async def test_embeddings_of_every_dtype_arrive_as_float32(rag):
    embeddings = await rag.embed(["a", "b"], role="passage")
    assert embeddings.vectors.dtype == np.float32
    assert embeddings.vectors.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert embeddings.encoder.dim == 2


async def test_upsert_streams_messages_of_bounded_size_and_tells_failures_from_duplicates(rag, gateway):
    passages = [Passage(id=str(i), text="t", metadata={"ok": True, "tags": ("x",)}) for i in range(300)]
    result = await rag.upsert(
        iter(passages), collection="wiki", sources=[Source("s", digest="d")], replace_sources=True
    )
    first, second = gateway.requests[0]
    assert (first.collection, first.sources[0].digest, first.replace_sources) == ("wiki", "d", True)
    assert [item.passage.id for item in (*first.passages, *second.passages)] == [str(i) for i in range(300)]
    assert first.passages[0].passage.metadata["ok"].bool_value is True
    assert (result.sequence, result.num_inserted) == (5, 1)
    assert [(status.id, status.error.reason) for status in result.failures] == [("big", "TOO_LARGE")]
    assert result.statuses[0].duplicate_of == "p1"


async def test_large_passages_are_spread_over_messages_by_bytes(rag, gateway):
    await rag.upsert([Passage(id=str(i), text="x" * 60_000) for i in range(40)])
    assert all(message.ByteSize() <= 1 << 20 for message in gateway.requests[0])
    assert sum(len(message.passages) for message in gateway.requests[0]) == 40


async def test_an_upsert_without_passages_still_sends_its_sources(rag, gateway):
    await rag.upsert([], sources=[Source("gone.md")], replace_sources=True)
    (message,) = gateway.requests[0]
    assert message.sources[0].name == "gone.md"


async def test_a_ready_vector_goes_with_its_passage(rag, gateway):
    await rag.upsert([EmbeddedPassage(Passage(id="a", text="t"), np.array([1, 2], np.float32))])
    assert gateway.requests[0][0].passages[0].vector.dim == 2


async def test_what_the_callers_iterator_raises_reaches_the_caller(rag):
    def passages():
        yield Passage(id="a", text="t")
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        await rag.upsert(passages())


async def test_text_that_is_not_unicode_is_refused_naming_the_field(rag):
    with pytest.raises(errors.InvalidRequest, match="text"):
        await rag.upsert([Passage(id="a", text="\ud800")])


async def test_delete_takes_exactly_one_selector(rag, gateway):
    result = await rag.delete(sources=["a.md"])
    assert (result.num_deleted, result.sequence) == (2, 6)
    assert list(gateway.requests[0].sources.names) == ["a.md"]
    await rag.delete(filter=field("year") < 1900)
    assert gateway.requests[1].filter.range.less_than.int_value == 1900
    with pytest.raises(errors.InvalidRequest, match="exactly one"):
        await rag.delete(ids=["a"], sources=["b"])
    with pytest.raises(errors.InvalidRequest, match="exactly one"):
        await rag.delete()


async def test_listings_read_every_page(rag, gateway):
    assert [passage.id async for passage in rag.list_passages(page_size=1)] == ["a", "b"]
    assert [request.page_token for request in gateway.requests] == ["", "next"]
    (source,) = [source async for source in rag.list_sources(prefix="cap")]
    assert (source.name, source.num_passages, source.updated_at.isoformat()) == (
        "capitals.md",
        3,
        "1970-01-02T00:00:00+00:00",
    )


async def test_passages_are_read_by_id(rag):
    assert [passage.id for passage in await rag.get_passages(["p1", "p9"])] == ["p1"]


async def test_collections_are_created_configured_described_listed_and_dropped(rag, gateway):
    created = await rag.create_collection(
        "wiki", metric="cosine", filterable_fields={"year": "int"}, temperature=0.05, fusion=Fusion("linear", 1.0, 0.03)
    )
    assert (created.name, created.settings.metric, created.settings.filterable_fields) == (
        "wiki",
        "cosine",
        {"year": "int"},
    )
    assert (created.settings.temperature, created.settings.fusion.lexical_weight) == (0.05, 0.03)
    assert (created.num_passages, created.index_kind, created.measured_recall) == (3, "exact", 1.0)
    assert (await rag.configure_collection("wiki", temperature=0.1)).settings.temperature == 0.1
    assert not gateway.requests[1].HasField("fusion")
    assert (await rag.describe_collection("wiki")).name == "wiki"
    assert [collection.name for collection in await rag.list_collections()] == ["default"]
    assert await rag.drop_collection("wiki") == 3


async def test_feedback_and_info(rag, gateway):
    assert await rag.send_feedback("a1", "bad", expected_answer="Lyon", helpful_passage_ids=["p1"]) == "f1"
    feedback = gateway.requests[0].feedback
    assert (feedback.answer_id, feedback.rating, feedback.expected_answer) == ("a1", feedback.RATING_BAD, "Lyon")
    info = await rag.info()
    assert info.retriever is None
    assert info.generator.models == (DecodingModel.RAG_TOKEN,)
    assert [(limit.name, limit.value) for limit in info.service.limits] == [("max_top_k", 100.0)]


async def test_every_call_has_a_deadline_and_a_request_id_of_its_own(rag, gateway):
    await rag.answer("q")
    await rag.answer("q", timeout=5.0)
    assert gateway.times_remaining[0] <= 31
    assert gateway.times_remaining[1] <= 5.1 < gateway.times_remaining[0]
    ids = [metadata["x-request-id"] for metadata in gateway.metadata]
    assert len(set(ids)) == 2


async def test_a_refusal_keeps_message_reason_and_field(rag, gateway):
    gateway.error = InvalidRequest("question must not be blank", field="question", reason="BLANK")
    with pytest.raises(errors.InvalidRequest) as caught:
        await rag.answer("")
    assert (caught.value.message, caught.value.reason, caught.value.field) == (
        "question must not be blank",
        "BLANK",
        "question",
    )


async def test_an_overload_says_when_to_try_again_and_is_not_retried(rag, gateway):
    gateway.error = Overloaded("queue is full", retry_after_seconds=1.5)
    with pytest.raises(errors.Overloaded) as caught:
        await rag.answer("q")
    assert caught.value.retry_after_seconds == 1.5
    assert len(gateway.requests) == 1


async def test_unavailable_is_retried_and_told_in_the_end(rag, gateway):
    gateway.error = NotReady("retriever at x is not reachable", reason="UNREACHABLE")
    with pytest.raises(errors.NotReady, match="retriever at x"):
        await rag.answer("q")
    assert len(gateway.requests) == 3


async def test_a_timeout_is_told(rag, gateway):
    gateway.hangs = True
    with pytest.raises(errors.DeadlineExceeded):
        await rag.answer("q", timeout=0.2)


async def test_an_unexpected_failure_tells_no_secrets(rag, gateway):
    gateway.error = RuntimeError("secret")
    with pytest.raises(errors.InternalError) as caught:
        await rag.answer("q")
    assert "secret" not in caught.value.message


async def test_an_error_ends_a_stream(rag, gateway):
    gateway.error = InvalidRequest("bad", field="question")
    with pytest.raises(errors.InvalidRequest):
        [event async for event in rag.stream("")]


async def test_readiness_follows_health(rag, server):
    assert await rag.is_ready() is True
    await server.health.draining()
    assert await rag.is_ready() is False


async def test_an_address_where_nobody_listens_is_named():
    async with AsyncRagClient("127.0.0.1:1") as client:
        assert await client.is_ready() is False
        with pytest.raises(errors.NotReady, match=r"gateway at 127\.0\.0\.1:1 is not reachable"):
            await client.answer("q")


async def test_leaving_an_async_stream_cancels_the_answer(server, gateway):
    gateway.hangs = True
    async with AsyncRagClient(server.address) as client, contextlib.aclosing(client.stream("q")) as events:
        async for event in events:
            if isinstance(event, TokenDelta):
                break
    await asyncio.wait_for(gateway.cancelled.wait(), 10)


async def test_closing_a_sync_stream_cancels_the_answer(server, gateway):
    gateway.hangs = True

    def read_one_delta():
        with RagClient(server.address) as client, contextlib.closing(client.stream("q")) as events:
            return next(event.text for event in events if isinstance(event, TokenDelta))

    assert await asyncio.to_thread(read_one_delta) == "Par"
    await asyncio.wait_for(gateway.cancelled.wait(), 10)
