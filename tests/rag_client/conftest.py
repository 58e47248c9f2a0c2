"""A scripted gateway over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protos.rag.v1 import (
    common_pb2,
    gateway_pb2,
    gateway_pb2_grpc,
    generator_pb2,
    retriever_pb2,
    retriever_pb2_grpc,
)
from serving.server import Service
from serving.testing import TestServer, test_server


def retrieved(name: str, rank: int) -> common_pb2.RetrievedPassage:
    return common_pb2.RetrievedPassage(
        passage=common_pb2.Passage(
            id=name,
            title="France",
            text="Paris is the capital of France.",
            source="capitals.md",
            span=common_pb2.TextSpan(start_char=3, end_char=34),
            metadata={
                "year": common_pb2.Value(int_value=2020),
                "tags": common_pb2.Value(string_list=common_pb2.StringList(values=["a", "b"])),
            },
        ),
        rank=rank,
        score=1.5,
        dense_score=0.75,
        log_prior=-0.25,
    )


def answer_response() -> gateway_pb2.AnswerResponse:
    citation = gateway_pb2.CitedPassage(retrieved=retrieved("p1", 1), prior=0.6, posterior=0.9)
    return gateway_pb2.AnswerResponse(
        answer=gateway_pb2.Answer(
            answer_id="a1",
            text="Paris",
            raw_text="paris",
            finish_reason="FINISH_REASON_END_OF_SEQUENCE",
            log_probability=-0.5,
            confidence=0.8,
            citations=[citation],
            model="DECODING_MODEL_RAG_SEQUENCE",
        ),
        provenance=common_pb2.Provenance(collection="default", index_generation=7, generator="g"),
        timings=[common_pb2.StageTiming(stage="STAGE_TOTAL", duration_seconds=0.5)],
    )


class FakeGateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Keeps the last request of each kind; raises `error` when it is set."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.times_remaining: list[float | None] = []
        self.metadata: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.cancelled = asyncio.Event()
        self.hangs = False

    def _saw(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.times_remaining.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        if self.error is not None:
            raise self.error

    async def Answer(self, request: gateway_pb2.AnswerRequest, context: Any) -> gateway_pb2.AnswerResponse:
        self._saw(request, context)
        if self.hangs:
            await asyncio.Event().wait()
        return answer_response()

    async def StreamAnswer(self, request: Any, context: Any) -> AsyncIterator[gateway_pb2.StreamAnswerResponse]:
        self._saw(request, context)
        timing = common_pb2.StageTiming(stage="STAGE_RETRIEVE", duration_seconds=0.25)
        yield gateway_pb2.StreamAnswerResponse(stage=gateway_pb2.StageEvent(timing=timing))
        found = gateway_pb2.RetrievedPassages(passages=[retrieved("p1", 1)])
        yield gateway_pb2.StreamAnswerResponse(passages=found)
        yield gateway_pb2.StreamAnswerResponse()  # A kind of event that this client does not know yet.
        yield gateway_pb2.StreamAnswerResponse(delta=generator_pb2.TokenDelta(text="Par"))
        try:
            if self.hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield gateway_pb2.StreamAnswerResponse(delta=generator_pb2.TokenDelta(text="is"))
        yield gateway_pb2.StreamAnswerResponse(final=answer_response())

    async def CompareAnswers(self, request: Any, context: Any) -> gateway_pb2.CompareAnswersResponse:
        self._saw(request, context)
        answers = [answer_response() for _ in request.index_generations]
        for answer, generation in zip(answers, request.index_generations, strict=True):
            answer.provenance.index_generation = generation
        return gateway_pb2.CompareAnswersResponse(answers=answers)

    async def SendFeedback(self, request: Any, context: Any) -> gateway_pb2.SendFeedbackResponse:
        self._saw(request, context)
        return gateway_pb2.SendFeedbackResponse(feedback_id="f1")

    async def GetInfo(self, request: Any, context: Any) -> Any:
        self._saw(request, context)
        service = common_pb2.ServiceInfo(service="gateway", limits=[common_pb2.Limit(name="max_top_k", value=100)])
        return gateway_pb2.GatewayServiceGetInfoResponse(
            service=service,
            generator=generator_pb2.GeneratorServiceGetInfoResponse(models=["DECODING_MODEL_RAG_TOKEN"]),
        )


class FakeRetrieval(retriever_pb2_grpc.RetrieverServiceServicer):
    """The RetrieverService at the gateway's address; shares the gateway's record of requests."""

    def __init__(self, gateway: FakeGateway) -> None:
        self._saw = gateway._saw

    async def Retrieve(self, request: Any, context: Any) -> retriever_pb2.RetrieveResponse:
        self._saw(request, context)
        results = [
            retriever_pb2.QueryResult(status=common_pb2.Status(code=3, message="query is blank", reason="BLANK"))
            if query.text == "bad"
            else retriever_pb2.QueryResult(passages=[retrieved("p1", 1), retrieved("p2", 2)])
            for query in request.queries
        ]
        return retriever_pb2.RetrieveResponse(results=results)

    async def Embed(self, request: Any, context: Any) -> retriever_pb2.EmbedResponse:
        self._saw(request, context)
        half = common_pb2.Vector(data=b"\x00\x3c\x00\x40", dtype="DATA_TYPE_FLOAT16", dim=2)
        bfloat = common_pb2.Vector(data=b"\x80\x3f\x00\x40", dtype="DATA_TYPE_BFLOAT16", dim=2)
        return retriever_pb2.EmbedResponse(vectors=[half, bfloat], encoder=common_pb2.ModelInfo(name="e", dim=2))

    async def Upsert(self, request_iterator: Any, context: Any) -> retriever_pb2.UpsertResponse:
        messages = [message async for message in request_iterator]
        self._saw(messages, context)
        statuses = [
            retriever_pb2.ItemStatus(id="dup", status=common_pb2.Status(code=6), duplicate_of="p1"),
            retriever_pb2.ItemStatus(id="big", status=common_pb2.Status(code=3, message="text", reason="TOO_LARGE")),
        ]
        return retriever_pb2.UpsertResponse(statuses=statuses, sequence=5, num_inserted=1)

    async def Delete(self, request: Any, context: Any) -> retriever_pb2.DeleteResponse:
        self._saw(request, context)
        return retriever_pb2.DeleteResponse(num_deleted=2, sequence=6)

    async def GetPassages(self, request: Any, context: Any) -> retriever_pb2.GetPassagesResponse:
        self._saw(request, context)
        return retriever_pb2.GetPassagesResponse(passages=[retrieved("p1", 1).passage], missing_ids=["p9"])

    async def ListPassages(self, request: Any, context: Any) -> retriever_pb2.ListPassagesResponse:
        self._saw(request, context)
        page = {"": ("a", "next"), "next": ("b", "")}[request.page_token]
        return retriever_pb2.ListPassagesResponse(
            passages=[common_pb2.Passage(id=page[0])], next_page_token=page[1], num_total=2
        )

    async def ListSources(self, request: Any, context: Any) -> retriever_pb2.ListSourcesResponse:
        self._saw(request, context)
        source = retriever_pb2.Source(name="capitals.md", digest="d", num_passages=3)
        source.updated_at.FromSeconds(86400)
        return retriever_pb2.ListSourcesResponse(sources=[source])

    def _collection(self, settings: Any) -> retriever_pb2.Collection:
        return retriever_pb2.Collection(settings=settings, num_passages=3, index_kind="exact", measured_recall=1.0)

    async def CreateCollection(self, request: Any, context: Any) -> retriever_pb2.CreateCollectionResponse:
        self._saw(request, context)
        return retriever_pb2.CreateCollectionResponse(collection=self._collection(request.settings), created=True)

    async def ConfigureCollection(self, request: Any, context: Any) -> retriever_pb2.ConfigureCollectionResponse:
        self._saw(request, context)
        settings = retriever_pb2.CollectionSettings(
            name=request.collection, temperature=request.temperature, fusion=request.fusion
        )
        return retriever_pb2.ConfigureCollectionResponse(collection=self._collection(settings))

    async def DescribeCollection(self, request: Any, context: Any) -> retriever_pb2.DescribeCollectionResponse:
        self._saw(request, context)
        settings = retriever_pb2.CollectionSettings(name=request.collection)
        return retriever_pb2.DescribeCollectionResponse(collection=self._collection(settings))

    async def ListCollections(self, request: Any, context: Any) -> retriever_pb2.ListCollectionsResponse:
        self._saw(request, context)
        settings = retriever_pb2.CollectionSettings(name="default")
        return retriever_pb2.ListCollectionsResponse(collections=[self._collection(settings)])

    async def DropCollection(self, request: Any, context: Any) -> retriever_pb2.DropCollectionResponse:
        self._saw(request, context)
        return retriever_pb2.DropCollectionResponse(num_dropped=3)


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def server(gateway: FakeGateway) -> AsyncIterator[TestServer]:
    add_gateway = gateway_pb2_grpc.add_GatewayServiceServicer_to_server
    add_retrieval = retriever_pb2_grpc.add_RetrieverServiceServicer_to_server
    services = (
        Service("rag.v1.GatewayService", lambda server: add_gateway(gateway, server)),
        Service("rag.v1.RetrieverService", lambda server: add_retrieval(FakeRetrieval(gateway), server)),
    )
    async with test_server(*services) as running:
        yield running
