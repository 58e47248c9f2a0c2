"""rag.v1.GatewayService: convert, call, convert. Errors go to the interceptor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from gateway import convert, convert_answers
from gateway.clients import GeneratorClient, RetrieverClient
from gateway.config import GatewayConfig
from gateway.feedback import FeedbackLog
from gateway.metrics import gateway_metrics
from gateway.pipeline import Pipeline
from protos.rag.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc
from serving.server import build_version


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """The wire face of the pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        feedback_log: FeedbackLog,
        retriever: RetrieverClient,
        generator: GeneratorClient,
        config: GatewayConfig,
    ) -> None:
        """Takes what is already built."""
        self._pipeline, self._feedback_log = pipeline, feedback_log
        self._retriever, self._generator = retriever, generator
        self._build_version = build_version()
        self._info = common_pb2.ServiceInfo(
            service="gateway",
            build_version=self._build_version,
            limits=convert.limits(config.admission.max_items, config.transport.max_message_bytes),
        )
        self._info.started_at.GetCurrentTime()

    async def Answer(self, request: gateway_pb2.AnswerRequest, context: Any) -> gateway_pb2.AnswerResponse:
        """Retrieves passages and answers from them."""
        answer = await self._pipeline.answer(convert.question(request))
        return convert_answers.answer_response(answer, self._build_version)

    async def StreamAnswer(
        self, request: gateway_pb2.StreamAnswerRequest, context: Any
    ) -> AsyncIterator[gateway_pb2.StreamAnswerResponse]:
        """The same as a stream of events."""
        async with aclosing(self._pipeline.stream(convert.question(request))) as events:
            async for event in events:
                yield convert_answers.event(event, self._build_version)

    async def CompareAnswers(
        self, request: gateway_pb2.CompareAnswersRequest, context: Any
    ) -> gateway_pb2.CompareAnswersResponse:
        """One answer per index generation; they are made side by side, and the first failure ends them all."""
        questions = convert.compared_questions(request)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._pipeline.answer(question)) for question in questions]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        answers = [convert_answers.answer_response(task.result(), self._build_version) for task in tasks]
        return gateway_pb2.CompareAnswersResponse(answers=answers)

    async def SendFeedback(
        self, request: gateway_pb2.SendFeedbackRequest, context: Any
    ) -> gateway_pb2.SendFeedbackResponse:
        """Stores feedback durably."""
        feedback = convert.feedback(request.feedback)
        feedback_id = await self._feedback_log.append(feedback)
        gateway_metrics().feedback(feedback.rating)
        return gateway_pb2.SendFeedbackResponse(feedback_id=feedback_id)

    async def GetInfo(
        self, request: gateway_pb2.GatewayServiceGetInfoRequest, context: Any
    ) -> gateway_pb2.GatewayServiceGetInfoResponse:
        """What this gateway is, and what stands behind it."""
        retriever, generator = await asyncio.gather(self._retriever.info(), self._generator.info())
        return gateway_pb2.GatewayServiceGetInfoResponse(service=self._info, retriever=retriever, generator=generator)
