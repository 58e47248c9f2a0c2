"""A scripted retriever and a scripted generator."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protos.rag.v1 import common_pb2, generator_pb2, generator_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from serving.errors import FailedPrecondition

PRIORS = (0.5, 0.3, 0.2)


def vector(values: list[float]) -> common_pb2.Vector:
    """An embedding on the wire."""
    return common_pb2.Vector(data=np.array(values, "<f4").tobytes(), dim=len(values))


async def no_hook() -> None:
    """Nothing happens."""


@dataclass
class Seen:
    """What one call of a backend brought along."""

    request: Any
    time_remaining: float | None
    metadata: dict[str, str]


@dataclass
class Script:
    """What a fake backend does, and what it saw."""

    hook: Callable[[], Awaitable[None]] = no_hook
    seen: list[Seen] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, request: Any, context: Any) -> None:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.seen.append(Seen(request, context.time_remaining(), metadata))
        try:
            await self.hook()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class FakeRetriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Finds three fixed passages unless told otherwise."""

    def __init__(self) -> None:
        self.script = Script()
        self.num_passages = 3
        self.item_status = common_pb2.Status()
        self.passage_vectors = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
        self.text_vectors: dict[str, list[float]] = {}  # By the last word of the text.
        self.metric = retriever_pb2.METRIC_COSINE
        self.encoder_digest = "encoder-1"
        self.embedded: list[retriever_pb2.EmbedRequest] = []
        self.state = ""
        self.num_state_calls = 0
        self.state_error: Exception | None = None
        self.found: dict[str, list[common_pb2.RetrievedPassage]] = {}  # By query, instead of the three.
        self.sources: dict[str, list[common_pb2.Passage]] = {}

    async def Retrieve(self, request: retriever_pb2.RetrieveRequest, context: Any) -> retriever_pb2.RetrieveResponse:
        await self.script.play(request, context)
        passages = [
            common_pb2.RetrievedPassage(
                passage=common_pb2.Passage(id=f"p{i}", title=f"Title {i}", text=f"Text {i}", source=f"source{i}.md"),
                rank=i + 1,
                score=3.0 - i,
                dense_score=0.9 - i / 10,
                log_prior=math.log(PRIORS[i]),
                vector=vector(self.passage_vectors[i]) if request.options.include_vectors else None,
            )
            for i in range(self.num_passages)
        ]
        return retriever_pb2.RetrieveResponse(
            results=[
                retriever_pb2.QueryResult(status=self.item_status, passages=self.found.get(query.text, passages))
                for query in request.queries
            ],
            provenance=common_pb2.Provenance(
                collection="default",
                index_generation=request.options.index_generation or 7,
                encoder="fake-encoder",
                encoder_digest="encoder-1",
                collection_state=self.state,
            ),
            temperature=0.5,
            metric=self.metric,
            timings=[
                common_pb2.StageTiming(stage="STAGE_QUEUE", duration_seconds=0.25),
                common_pb2.StageTiming(stage="STAGE_SEARCH", duration_seconds=0.5),
            ],
        )

    async def Embed(self, request: retriever_pb2.EmbedRequest, context: Any) -> retriever_pb2.EmbedResponse:
        self.embedded.append(request)
        return retriever_pb2.EmbedResponse(
            vectors=[vector(self.text_vectors[text.split()[-1]]) for text in request.texts],
            encoder=common_pb2.ModelInfo(digest=self.encoder_digest),
        )

    async def GetCollectionState(self, request: Any, context: Any) -> retriever_pb2.GetCollectionStateResponse:
        self.num_state_calls += 1
        if self.state_error is not None:
            raise self.state_error
        return retriever_pb2.GetCollectionStateResponse(collection_state=self.state)

    async def ListPassages(
        self, request: retriever_pb2.ListPassagesRequest, context: Any
    ) -> retriever_pb2.ListPassagesResponse:
        """Two a page."""
        passages = self.sources.get(request.filter.equals.value.string_value, [])
        start = int(request.page_token or 0)
        end = min(start + 2, len(passages))
        token = str(end) if end < len(passages) else ""
        return retriever_pb2.ListPassagesResponse(passages=passages[start:end], next_page_token=token)

    async def Upsert(self, request_iterator: Any, context: Any) -> retriever_pb2.UpsertResponse:
        ids = [item.passage.id async for message in request_iterator for item in message.passages]
        await self.script.play(ids, context)
        await context.send_initial_metadata((("written-by", "fake"),))
        return retriever_pb2.UpsertResponse(sequence=41, num_inserted=len(ids))

    async def ExportCollection(
        self, request: retriever_pb2.ExportCollectionRequest, context: Any
    ) -> AsyncIterator[retriever_pb2.ExportCollectionResponse]:
        await self.script.play(request, context)
        for total in (1, 2, 3):
            yield retriever_pb2.ExportCollectionResponse(num_total=total)

    async def GetInfo(self, request: Any, context: Any) -> retriever_pb2.RetrieverServiceGetInfoResponse:
        return retriever_pb2.RetrieverServiceGetInfoResponse(service=common_pb2.ServiceInfo(service="retriever"))


class FakeGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    """Always answers "Paris", mostly because of the second passage."""

    def __init__(self) -> None:
        self.script = Script()
        self.confidence = 0.8
        self.deltas = ("Par", "is")
        self.candidates: list[common_pb2.Hypothesis] | None = None
        self.digest = ""
        self.likelihoods: dict[str, float] = {}  # log p(question | passage) by passage id.
        self.no_answers: dict[str, float] = {}  # p(no answer | question, passage) by passage id; none: never taught.
        self.scored: list[generator_pb2.ScoreRequest] = []
        self.label_scores: dict[str, float] = {}  # log p(label | question).
        self.texts: dict[str, str] = {}  # What is answered, by what is read.
        self.tasks: list[generator_pb2.TaskPrompt] = []
        self.max_new_tokens = 200

    def _reply(self, request: Any) -> generator_pb2.GenerateResponse:
        posteriors = (0.1, 0.7, 0.2, *[0.0] * 97)[: len(request.input.passages)]
        return generator_pb2.GenerateResponse(
            generation=generator_pb2.Generation(
                text=self.texts.get(request.input.question, "Paris"),
                raw_text="paris",
                finish_reason="FINISH_REASON_END_OF_SEQUENCE",
                log_probability=-0.5,
                confidence=self.confidence,
                posteriors=posteriors,
                hypotheses=[common_pb2.Hypothesis(text="Paris", posteriors=posteriors)]
                if self.candidates is None
                else self.candidates,
                model=request.decoding.model or "DECODING_MODEL_RAG_SEQUENCE",
            ),
            provenance=common_pb2.Provenance(generator="fake-generator", generator_digest=self.digest),
            timings=[
                common_pb2.StageTiming(stage="STAGE_QUEUE", duration_seconds=0.25),
                common_pb2.StageTiming(stage="STAGE_DECODE", duration_seconds=0.125),
                common_pb2.StageTiming(stage="STAGE_TOTAL", duration_seconds=9.0),
            ],
        )

    async def Generate(self, request: generator_pb2.GenerateRequest, context: Any) -> generator_pb2.GenerateResponse:
        await self.script.play(request, context)
        return self._reply(request)

    async def StreamGenerate(
        self, request: generator_pb2.StreamGenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.StreamGenerateResponse]:
        for text in self.deltas:
            yield generator_pb2.StreamGenerateResponse(delta=generator_pb2.TokenDelta(text=text))
        await self.script.play(request, context)
        yield generator_pb2.StreamGenerateResponse(final=self._reply(request))

    async def Score(self, request: generator_pb2.ScoreRequest, context: Any) -> generator_pb2.ScoreResponse:
        self.scored.append(request)
        if request.answers:
            await self.script.hook()
            posteriors = (0.1, 0.7, 0.2, *[0.0] * 97)[: len(request.input.passages)]
            given = [
                generator_pb2.AnswerScore(log_probability=self.label_scores[label], posteriors=posteriors)
                for label in request.answers
            ]
            provenance = common_pb2.Provenance(generator="fake-generator", generator_digest=self.digest)
            return generator_pb2.ScoreResponse(scores=given, provenance=provenance)
        if request.score_no_answer:
            await self.script.hook()
            if not self.no_answers:
                raise FailedPrecondition(
                    "the checkpoint 'fake' was not taught to answer nothing", reason="NEVER_ABSTAINS"
                )
            scores = [math.log(self.no_answers[passage.id]) for passage in request.input.passages]
        else:
            scores = [self.likelihoods[passage.id] for passage in request.input.passages]
        return generator_pb2.ScoreResponse(scores=[generator_pb2.AnswerScore(passage_log_probabilities=scores)])

    async def GetInfo(self, request: Any, context: Any) -> generator_pb2.GeneratorServiceGetInfoResponse:
        return generator_pb2.GeneratorServiceGetInfoResponse(
            service=common_pb2.ServiceInfo(service="generator"),
            generator=common_pb2.ModelInfo(digest=self.digest, max_input_tokens=512),
            tasks=self.tasks,
            max_new_tokens=self.max_new_tokens,
        )
