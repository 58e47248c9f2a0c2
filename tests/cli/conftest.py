"""A gateway in memory, served by the real server on a real port, and the `rag` command as a real process."""

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cli.__main__ import main
from protos.rag.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc, generator_pb2, retriever_pb2, retriever_pb2_grpc
from serving.errors import NotFound, NotReady
from serving.server import Service
from serving.testing import test_server as serve

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


Rag = Callable[..., Awaitable[Finished]]


@dataclass
class FakeCollection:
    passages: dict[str, common_pb2.Passage] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


class FakeRetriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Keeps passages in a dictionary; finds those that share a word with the query."""

    def __init__(self) -> None:
        self.collections: dict[str, FakeCollection] = {}
        self.num_upserts = 0
        self.num_refusals_left = 0

    def of(self, name: str) -> FakeCollection:
        if name not in self.collections:
            there = ", ".join(sorted(self.collections)) or "none yet"
            raise NotFound(f"no collection {name!r}; there are: {there}", reason="COLLECTION_NOT_FOUND")
        return self.collections[name]

    async def CreateCollection(self, request, context):
        self.collections.setdefault(request.settings.name, FakeCollection())
        return retriever_pb2.CreateCollectionResponse(collection=self.describe(request.settings.name), created=True)

    def describe(self, name: str) -> retriever_pb2.Collection:
        collection = self.of(name)
        settings = retriever_pb2.CollectionSettings(name=name)
        return retriever_pb2.Collection(settings=settings, num_passages=len(collection.passages))

    async def DescribeCollection(self, request, context):
        return retriever_pb2.DescribeCollectionResponse(collection=self.describe(request.collection))

    async def ListCollections(self, request, context):
        return retriever_pb2.ListCollectionsResponse(collections=map(self.describe, sorted(self.collections)))

    async def DropCollection(self, request, context):
        return retriever_pb2.DropCollectionResponse(num_dropped=len(self.collections.pop(request.collection).passages))

    async def ListSources(self, request, context):
        digests = self.of(request.collection).digests
        return retriever_pb2.ListSourcesResponse(
            sources=[retriever_pb2.Source(name=name, digest=digest) for name, digest in sorted(digests.items())]
        )

    async def ListPassages(self, request, context):
        source = request.filter.equals.value.string_value
        found = [each for each in self.of(request.collection).passages.values() if each.source == source]
        return retriever_pb2.ListPassagesResponse(passages=found)

    async def Upsert(self, request_iterator, context):
        requests = [request async for request in request_iterator]
        self.num_upserts += 1
        if self.num_refusals_left:
            self.num_refusals_left -= 1
            raise NotReady("draining", reason="DRAINING")
        collection, reply = self.of(requests[0].collection), retriever_pb2.UpsertResponse()
        passages = [item.passage for request in requests for item in request.passages]
        digests = {source.name: source.digest for request in requests for source in request.sources}
        for passage in passages:
            status = reply.statuses.add(id=passage.id)
            if "refuse me" in passage.text:
                status.status.code, status.status.message = 3, "passage.text: not liked"
                digests[passage.source] = ""
                continue
            before = collection.passages.get(passage.id)
            collection.passages[passage.id] = passage
            counter = "num_inserted" if before is None else "num_unchanged" if before == passage else "num_updated"
            setattr(reply, counter, getattr(reply, counter) + 1)
        if requests[0].replace_sources:
            names, kept = {source.name for source in requests[0].sources}, {passage.id for passage in passages}
            for id_ in [i for i, p in collection.passages.items() if p.source in names and i not in kept]:
                del collection.passages[id_]
                reply.num_deleted += 1
        collection.digests |= digests
        return reply

    async def Delete(self, request, context):
        collection = self.of(request.collection)
        names, ids = set(request.sources.names), set(request.ids.ids)
        gone = [i for i, p in collection.passages.items() if p.source in names or i in ids]
        for id_ in gone:
            del collection.passages[id_]
        for name in names:
            collection.digests.pop(name, None)
        return retriever_pb2.DeleteResponse(num_deleted=len(gone))

    def find(self, name: str, query: str, top_k: int) -> list[common_pb2.RetrievedPassage]:
        words = set(query.lower().strip("?").split())
        hits = [p for p in self.of(name or "default").passages.values() if words & set(p.text.lower().split())]
        return [
            common_pb2.RetrievedPassage(passage=passage, rank=rank, score=1 / rank, dense_score=0.5, log_prior=-0.7)
            for rank, passage in enumerate(hits[: top_k or 5], start=1)
        ]

    async def Retrieve(self, request, context):
        options = request.options
        found = [self.find(options.collection, query.text, options.top_k) for query in request.queries]
        return retriever_pb2.RetrieveResponse(results=[retriever_pb2.QueryResult(passages=each) for each in found])


class FakeGateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Answers with the first word of the first passage found."""

    def __init__(self, retriever: FakeRetriever) -> None:
        self.retriever = retriever
        self.requests: list[gateway_pb2.AnswerRequest | gateway_pb2.StreamAnswerRequest] = []

    def answer(self, request: gateway_pb2.AnswerRequest) -> gateway_pb2.AnswerResponse:
        self.requests.append(request)
        found = self.retriever.find(request.options.retrieval.collection, request.question, 5)
        answer = gateway_pb2.Answer(finish_reason=common_pb2.FINISH_REASON_NO_PASSAGES)
        if found and request.options.min_confidence > 0.5:
            answer = gateway_pb2.Answer(finish_reason=common_pb2.FINISH_REASON_ABSTAINED, confidence=0.5)
        elif found:
            answer = gateway_pb2.Answer(
                text=found[0].passage.text.split()[0],
                finish_reason=common_pb2.FINISH_REASON_END_OF_SEQUENCE,
                confidence=0.5,
                citations=[gateway_pb2.CitedPassage(retrieved=hit, prior=0.5, posterior=0.75) for hit in found],
            )
        provenance = common_pb2.Provenance(collection="default", generator="fake", generator_digest="abc")
        return gateway_pb2.AnswerResponse(answer=answer, provenance=provenance)

    async def Answer(self, request, context):
        return self.answer(request)

    async def StreamAnswer(self, request, context):
        yield gateway_pb2.StreamAnswerResponse(delta=generator_pb2.TokenDelta(text="misleading"))
        yield gateway_pb2.StreamAnswerResponse(final=self.answer(request))

    async def GetInfo(self, request, context):
        service = common_pb2.ServiceInfo(service="gateway", build_version="1")
        retriever = retriever_pb2.RetrieverServiceGetInfoResponse(service=common_pb2.ServiceInfo(service="retriever"))
        return gateway_pb2.GatewayServiceGetInfoResponse(service=service, retriever=retriever)


@dataclass(frozen=True)
class Served:
    address: str
    retriever: FakeRetriever
    gateway: FakeGateway


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    retriever = FakeRetriever()
    gateway = FakeGateway(retriever)
    add_retriever = partial(retriever_pb2_grpc.add_RetrieverServiceServicer_to_server, retriever)
    add_gateway = partial(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, gateway)
    services = (Service("rag.v1.RetrieverService", add_retriever), Service("rag.v1.GatewayService", add_gateway))
    with capture_logs():  # Of this process, whose output the tests read.
        async with serve(*services) as server:
            yield Served(server.address, retriever, gateway)


@pytest.fixture
def rag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rag:
    """Runs `rag` in an empty directory, in a thread of this process: starting one costs a second."""
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str, stdin: str = "") -> Finished:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            code = await asyncio.to_thread(main, arguments)
        except SystemExit as end:  # argparse's.
            code = int(end.code or 0)
        return Finished(code, *capsys.readouterr())

    return run


@pytest.fixture
def rag_process(tmp_path: Path) -> Rag:
    """Runs `rag` in an empty directory, as users do."""

    async def run(*arguments: str) -> Finished:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", *arguments),
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 120)
        return Finished(process.returncode or 0, out.decode(), err.decode())

    return run
