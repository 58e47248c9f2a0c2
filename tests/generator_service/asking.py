"""A started generator over the fake model, and a question for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.request import DecodingModel, DecodingOptions, Explanation, GenerationRequest, Passage
from generator_service.scheduler import Budget

PASSAGES = (
    Passage("p1", "France", "Paris is the capital of France.", -0.5, 0.9),
    Passage("p2", "", "Berlin is the capital of Germany.", -1.5, 0.4),
    Passage("p3", "", "It has a large river and 2 airports.", -3.0, 0.2),
)
MODELS = [DecodingModel.RAG_SEQUENCE, DecodingModel.RAG_TOKEN, DecodingModel.FUSION_IN_DECODER]


@asynccontextmanager
async def started(tiny: Any, **defaults: Any) -> AsyncIterator[Generator]:
    generator = Generator(
        lambda: tiny.loaded(**defaults), budget=Budget(), limits=Limits(), observer=generator_metrics()
    )
    await generator.start()
    try:
        yield generator
    finally:
        await generator.close()


def ask(passages: Any = PASSAGES, *, explain: Explanation | None = None, **options: Any) -> GenerationRequest:
    explanation = explain or Explanation()
    return GenerationRequest("What is the capital?", passages, DecodingOptions(**options), explanation)
