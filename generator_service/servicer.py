"""rag.v1.GeneratorService: convert, call the generator, convert."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from generator_service import convert
from generator_service.generator import Generator
from generator_service.request import Delta, GenerationRequest, ScoringRequest
from protos.rag.v1 import common_pb2, generator_pb2, generator_pb2_grpc
from serving.admission import Admission, Permit

Context = Any
"""grpc.aio.ServicerContext, which takes no type arguments at run time; not used here."""


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """The generator on the wire. Errors are the interceptor's business."""

    def __init__(
        self, generator: Generator, *, admission: Admission, build_version: str, max_message_bytes: int
    ) -> None:
        self._generator = generator
        self._admission = admission
        self._build_version = build_version
        self._max_message_bytes = max_message_bytes
        self._started_at = Timestamp()
        self._started_at.GetCurrentTime()

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Context
    ) -> generator_pb2.GenerateResponse:
        """One answer."""
        asked = convert.generation_request(request)
        with self._admit(asked):
            generation = await self._generator.generate(asked)
        return convert.generate_response(generation, self._provenance())

    async def StreamGenerate(
        self, request: generator_pb2.StreamGenerateRequest, context: Context
    ) -> AsyncIterator[generator_pb2.StreamGenerateResponse]:
        """One answer, its text as it comes."""
        asked = convert.generation_request(request)
        with self._admit(asked):
            async with aclosing(self._generator.stream(asked)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        yield convert.delta_response(event)
                    else:
                        final = convert.generate_response(event, self._provenance())
                        yield generator_pb2.StreamGenerateResponse(final=final)

    async def Score(self, request: generator_pb2.ScoreRequest, context: Context) -> generator_pb2.ScoreResponse:
        """The probability of given answers."""
        asked = convert.scoring_request(request)
        with self._admit(asked):
            scores = await self._generator.score(asked)
        return convert.score_response(scores, self._provenance())

    async def GetInfo(
        self, request: generator_pb2.GeneratorServiceGetInfoRequest, context: Context
    ) -> generator_pb2.GeneratorServiceGetInfoResponse:
        """What this generator is and allows."""
        generator = self._generator
        return generator_pb2.GeneratorServiceGetInfoResponse(
            service=common_pb2.ServiceInfo(
                service="generator",
                build_version=self._build_version,
                started_at=self._started_at,
                limits=convert.limits(generator.limits, max_message_bytes=self._max_message_bytes),
            ),
            generator=convert.model_info(generator.spec),
            prompt_format=generator.prompt_format,
            models=convert.models(),
            tasks=convert.tasks(generator.tasks),
            max_new_tokens=min(generator.limits.max_new_tokens, generator.spec.max_target_tokens),
        )

    def _admit(self, asked: GenerationRequest | ScoringRequest) -> Permit:
        targets: Sequence[str] = ()
        if isinstance(asked, ScoringRequest):
            targets = [asked.question] if asked.scores_question else asked.answers
        tokens = self._generator.estimate_tokens(asked.question, asked.passages, targets)
        return self._admission.admit(items=1, tokens=tokens)

    def _provenance(self) -> common_pb2.Provenance:
        return convert.provenance(self._generator.spec, self._build_version)
