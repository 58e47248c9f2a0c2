"""The probability that a passage holds no answer: the empty answer's score, from a checkpoint that was taught it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from generator_service.__main__ import build_service
from generator_service.config import GeneratorConfig
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.request import DecodingModel, Passage, ScoringRequest
from generator_service.scheduler import Budget
from generator_service.text import TextCodec
from protos.rag.v1 import generator_pb2 as wire
from protos.rag.v1 import generator_pb2_grpc
from serving.errors import FailedPrecondition, InvalidRequest
from serving.testing import test_server as serve_for_test
from tests.generator_service.asking import PASSAGES, ask

QUESTION = ask().question


def generator_of(tiny: Any, model: Any, *, abstains: bool = True) -> Generator:
    return Generator(
        lambda: replace(tiny.loaded(model), abstains=abstains),
        budget=Budget(),
        limits=Limits(),
        observer=generator_metrics(),
        encoder_cache_bytes=1_000_000,
    )


@asynccontextmanager
async def started(tiny: Any, model: Any, *, abstains: bool = True) -> AsyncIterator[Generator]:
    generator = generator_of(tiny, model, abstains=abstains)
    await generator.start()
    try:
        yield generator
    finally:
        await generator.close()


def fake(tiny: Any, **spec: Any) -> Any:
    model = tiny.fake(vocab_size=len(tiny.word_piece()))
    model.spec = replace(model.spec, **spec)
    return model


def request(passages: Any = PASSAGES, **more: Any) -> ScoringRequest:
    return ScoringRequest(QUESTION, passages, scores_no_answer=True, **more)


@pytest.mark.parametrize("forced_bos", [None, 5])
async def test_it_is_the_probability_that_the_first_free_token_ends_the_answer(
    tiny: Any, forced_bos: int | None
) -> None:
    model = fake(tiny, forced_bos_token_id=forced_bos)
    async with started(tiny, model) as generator:
        (score,) = (await generator.score(request())).answers
    loaded = tiny.loaded(model)
    rows = TextCodec(loaded.tokenizer, loaded.prompt).rows(QUESTION, PASSAGES)
    end = model.spec.eos_token_id
    target = [end] if forced_bos is None else [forced_bos, end]
    (log_probs,) = model.score(model.encode(rows), [target])
    assert score.passage_log_probabilities == pytest.approx(log_probs[:, -1].tolist(), abs=1e-5)
    priors = [math.exp(each.log_prior) for each in PASSAGES]
    mean = sum(p * math.exp(q) for p, q in zip(priors, score.passage_log_probabilities, strict=True)) / sum(priors)
    assert score.log_probability == pytest.approx(math.log(mean), abs=1e-4)


async def test_the_answer_after_it_encodes_no_row_again(tiny: Any) -> None:
    model = fake(tiny)
    candidates = [*PASSAGES, Passage("p4", "", "Berlin has 2 airports.")]
    async with started(tiny, model) as generator:
        await generator.score(request(candidates))
        num_rows = model.counters["rows_encoded"]
        await generator.generate(ask([candidates[3], candidates[0]]))
        assert model.counters["rows_encoded"] == num_rows
        await generator.generate(ask([Passage("new", "", "It is the river.")]))
        assert model.counters["rows_encoded"] == num_rows + 1


async def test_a_checkpoint_that_was_not_taught_it_is_refused_by_name(tiny: Any) -> None:
    async with started(tiny, fake(tiny), abstains=False) as generator:
        with pytest.raises(FailedPrecondition, match=r"'fake' was not taught .* \"rag_abstains\": true") as refused:
            await generator.score(request())
        assert refused.value.field == "score_no_answer"
        await generator.score(ScoringRequest(QUESTION, PASSAGES, [""]))  # A number like any other, if one asks for it.


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"answers": ["x"]}, "score_no_answer takes neither"),
        ({"model": DecodingModel.RAG_TOKEN}, "score_no_answer takes neither"),
        ({"scores_question": True}, "cannot go with score_question"),
    ],
)
async def test_nothing_else_is_scored_in_the_same_call(tiny: Any, more: Any, words: str) -> None:
    async with started(tiny, fake(tiny)) as generator:
        with pytest.raises(InvalidRequest, match=words) as refused:
            await generator.score(request(**more))
    assert refused.value.field == "score_no_answer"


@pytest.mark.parametrize("abstains", [True, False])
async def test_it_travels(tiny: Any, abstains: bool) -> None:
    generator = generator_of(tiny, fake(tiny), abstains=abstains)
    passages = [wire.GeneratorPassage(id=each.id, title=each.title, text=each.text) for each in PASSAGES]
    asked = wire.ScoreRequest(input={"question": QUESTION, "passages": passages}, score_no_answer=True)
    service = build_service(GeneratorConfig(), generator)
    async with (
        serve_for_test(service, name="generator", warm_up=generator.start, close=generator.close) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
        if abstains:
            (score,) = (await stub.Score(asked)).scores
            assert len(score.passage_log_probabilities) == len(PASSAGES)
        else:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Score(asked)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
