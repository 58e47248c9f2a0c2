"""`python -m benchmarks.generator.backends`: a retriever and a generator that answer at once, behind the real server.

Prints its address and serves until standard input ends. What is left to measure is transport and gateway.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from typing import Any

from protos.rag.v1 import common_pb2, generator_pb2, generator_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from serving.logs import configure_logging
from serving.server import Service, run
from serving.testing import test_server

NUM_PASSAGES = 5
NUM_DELTAS = 500
_TEXT = "words of a passage " * 50


class _Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    def __init__(self) -> None:
        self._reply = retriever_pb2.RetrieveResponse(
            results=[retriever_pb2.QueryResult(passages=[_passage(rank) for rank in range(1, NUM_PASSAGES + 1)])],
            provenance=common_pb2.Provenance(collection="default", index_generation=1, encoder="none"),
        )

    async def Retrieve(self, request: retriever_pb2.RetrieveRequest, context: Any) -> retriever_pb2.RetrieveResponse:
        return self._reply


class _Generator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self) -> None:
        posteriors = [1 / NUM_PASSAGES] * NUM_PASSAGES
        self._reply = generator_pb2.GenerateResponse(
            generation=generator_pb2.Generation(
                text="An answer", raw_text="an answer", finish_reason="FINISH_REASON_END_OF_SEQUENCE",
                log_probability=-1.0, confidence=0.5, posteriors=posteriors, model="DECODING_MODEL_RAG_TOKEN",
            )
        )  # fmt: skip

    async def Generate(self, request: generator_pb2.GenerateRequest, context: Any) -> generator_pb2.GenerateResponse:
        return self._reply

    async def StreamGenerate(
        self, request: generator_pb2.StreamGenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.StreamGenerateResponse]:
        for _ in range(NUM_DELTAS):
            yield generator_pb2.StreamGenerateResponse(delta=generator_pb2.TokenDelta(text="word "))
        yield generator_pb2.StreamGenerateResponse(final=self._reply)


def _passage(rank: int) -> common_pb2.RetrievedPassage:
    passage = common_pb2.Passage(id=f"p{rank}", title=f"Title {rank}", text=_TEXT, source="source.md")
    return common_pb2.RetrievedPassage(
        passage=passage, rank=rank, score=1.0 / rank, log_prior=math.log(1 / NUM_PASSAGES)
    )


async def _serve() -> None:
    configure_logging("error", "text")
    # Only what the benchmark calls is there.
    retriever, generator = _Retriever(), _Generator()  # type: ignore[abstract]
    services = (
        Service(
            "rag.v1.RetrieverService",
            lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(retriever, server),
        ),
        Service(
            "rag.v1.GeneratorService",
            lambda server: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(generator, server),
        ),
    )
    async with test_server(*services, name="backends") as server:
        print(server.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    run(_serve())
