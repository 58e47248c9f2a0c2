"""The generator over real gRPC: the contract's fields, defaults and statuses."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from generator_service.__main__ import build_service
from generator_service.config import GeneratorConfig
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.scheduler import Budget
from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import generator_pb2 as wire
from protos.rag.v1 import generator_pb2_grpc
from serving.config import AdmissionConfig
from serving.testing import test_server as serve_for_test


@asynccontextmanager
async def served(tiny: Any, model: Any = None, **config: Any) -> AsyncIterator[Any]:
    generator = Generator(lambda: tiny.loaded(model), budget=Budget(), limits=Limits(), observer=generator_metrics())
    service = build_service(GeneratorConfig(**config), generator)
    async with (
        serve_for_test(service, name="generator", warm_up=generator.start, close=generator.close) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield generator_pb2_grpc.GeneratorServiceStub(channel)


def source(question: str = "What is the capital of France?", count: int = 2) -> wire.GenerationInput:
    texts = ["Paris is the capital of France.", "It has a large river."] + ["Berlin"] * count
    passages = [
        wire.GeneratorPassage(id=f"p{i}", text=text, log_prior=-float(i)) for i, text in enumerate(texts[:count])
    ]
    return wire.GenerationInput(question=question, passages=passages)


async def test_a_unary_answer_has_every_field_of_the_contract(tiny: Any) -> None:
    async with served(tiny) as stub:
        reply = await stub.Generate(wire.GenerateRequest(input=source()))
    generation = reply.generation
    assert generation.model == common.DECODING_MODEL_RAG_SEQUENCE
    assert generation.finish_reason in (common.FINISH_REASON_END_OF_SEQUENCE, common.FINISH_REASON_LENGTH)
    assert generation.log_probability < 0
    assert sum(generation.posteriors) == pytest.approx(1, abs=1e-5)
    assert math.exp(generation.log_priors[0] - generation.log_priors[1]) == pytest.approx(math.e, rel=1e-4)
    assert 0 <= generation.confidence <= 1
    assert (generation.num_new_tokens > 0, generation.num_input_tokens > 0) == (True, True)
    assert (reply.provenance.generator, reply.provenance.generator_digest) == ("fake", "f" * 64)
    stages = {timing.stage: timing.duration_seconds for timing in reply.timings}
    assert set(stages) == {
        common.STAGE_TOKENIZE, common.STAGE_QUEUE, common.STAGE_PREFILL, common.STAGE_DECODE, common.STAGE_TOTAL
    }  # fmt: skip
    assert stages[common.STAGE_TOTAL] >= max(stages.values())


async def test_a_stream_sends_deltas_then_one_final_message(tiny: Any) -> None:
    async with served(tiny) as stub:
        request = wire.StreamGenerateRequest(
            input=source(), explanation=common.ExplanationOptions(token_posteriors=True)
        )
        events = [event async for event in stub.StreamGenerate(request)]
    assert [event.WhichOneof("event") for event in events] == ["delta"] * (len(events) - 1) + ["final"]
    final = events[-1].final.generation
    assert final.model == common.DECODING_MODEL_RAG_TOKEN
    assert "".join(event.delta.text for event in events[:-1]) == final.raw_text
    assert all(sum(token.posteriors) == pytest.approx(1, abs=1e-5) for token in final.tokens)


async def test_every_model_and_option_travels(tiny: Any) -> None:
    options = common.DecodingOptions(
        model=common.DECODING_MODEL_RAG_TOKEN, max_new_tokens=6, min_new_tokens=2, num_return_sequences=3,
        no_repeat_ngram_size=2, bad_words=["berlin"], sampling=common.Sampling(temperature=0.9, top_k=20, seed=3),
    )  # fmt: skip
    async with served(tiny) as stub:
        sampled = await stub.Generate(wire.GenerateRequest(input=source(), decoding=options))
        assert len(sampled.generation.hypotheses) == 3
        fast = common.DecodingOptions(
            sequence_scoring=common.SEQUENCE_SCORING_FAST, num_beams=3, length_penalty=0.5, early_stopping=True
        )
        thorough = common.DecodingOptions(num_beams=3, length_penalty=0.5, early_stopping=True)
        bound = (await stub.Generate(wire.GenerateRequest(input=source(), decoding=fast))).generation.log_probability
        exact = (await stub.Generate(wire.GenerateRequest(input=source(), decoding=thorough))).generation
        assert bound <= exact.log_probability + 1e-6


async def test_candidates_and_forced_words_travel(tiny: Any) -> None:
    options = common.DecodingOptions(
        candidate_ranking=common.CandidateRanking(num_candidates=4), forced_words=["Paris"], max_new_tokens=4
    )
    async with served(tiny) as stub:
        generation = (await stub.Generate(wire.GenerateRequest(input=source(), decoding=options))).generation
    assert generation.hypotheses[0].text == generation.text
    assert 2 <= len(generation.hypotheses) <= 4
    for each in generation.hypotheses:
        assert "paris" in each.raw_text
        assert 0 <= each.confidence <= 1
        assert each.finish_reason in (common.FINISH_REASON_END_OF_SEQUENCE, common.FINISH_REASON_LENGTH)
        assert 1 <= each.num_new_tokens <= 4
        assert sum(each.posteriors) == pytest.approx(1, abs=1e-5)


async def test_what_the_answer_would_be_without_each_passage_travels(tiny: Any) -> None:
    request = wire.GenerateRequest(
        input=source(count=3),
        decoding=common.DecodingOptions(model=common.DECODING_MODEL_FUSION_IN_DECODER),
        explanation=common.ExplanationOptions(leave_one_out=True),
    )
    async with served(tiny) as stub:
        generation = (await stub.Generate(request)).generation
    assert [each.passage_id for each in generation.leave_one_out] == ["p0", "p1", "p2"]
    assert all(each.exact and each.log_probability < 0 for each in generation.leave_one_out)
    assert [each.flips for each in generation.leave_one_out] == [
        each.text != generation.text for each in generation.leave_one_out
    ]


async def test_scores_of_given_answers(tiny: Any) -> None:
    async with served(tiny) as stub:
        reply = await stub.Score(wire.ScoreRequest(input=source(), answers=["Paris", "Berlin"]))
    for score in reply.scores:
        assert len(score.passage_log_probabilities) == 2
        assert sum(token.log_probability for token in score.tokens) == pytest.approx(score.log_probability, abs=1e-4)


async def test_every_model_scores_and_so_does_the_question(tiny: Any) -> None:
    async with served(tiny) as stub:
        for model, count in (
            (common.DECODING_MODEL_RAG_SEQUENCE, 2),
            (common.DECODING_MODEL_RAG_TOKEN, 2),
            (common.DECODING_MODEL_FUSION_IN_DECODER, 2),
            (common.DECODING_MODEL_CLOSED_BOOK, 0),
        ):
            request = wire.ScoreRequest(input=source(count=count), answers=["Paris"], model=model)
            (score,) = (await stub.Score(request)).scores
            assert len(score.posteriors) == count
            per_passage = 2 if model in (common.DECODING_MODEL_RAG_SEQUENCE, common.DECODING_MODEL_RAG_TOKEN) else 0
            assert len(score.passage_log_probabilities) == per_passage
            assert score.log_probability < 0
        (question,) = (await stub.Score(wire.ScoreRequest(input=source(), score_question=True))).scores
        assert len(question.passage_log_probabilities) == 2


async def test_info_states_model_and_limits(tiny: Any) -> None:
    async with served(tiny) as stub:
        info = await stub.GetInfo(wire.GeneratorServiceGetInfoRequest())
    limits = {limit.name: (limit.value, limit.unit) for limit in info.service.limits}
    assert limits["max_passages"] == (100, "items")
    assert limits["max_question_bytes"] == (8192, "bytes")
    assert limits["max_new_tokens"] == (512, "tokens")
    assert info.generator.digest == "f" * 64
    assert info.prompt_format == "question_passage"
    assert len(info.models) == 4
    assert (info.max_new_tokens, len(info.tasks)) == (min(512, tiny.loaded().model.spec.max_target_tokens), 0)


_BAD = [
    (wire.GenerateRequest(input=source(" ")), grpc.StatusCode.INVALID_ARGUMENT, "input.question"),
    (wire.GenerateRequest(input=source(count=0)), grpc.StatusCode.INVALID_ARGUMENT, "passage"),
    (wire.GenerateRequest(input=source(count=101)), grpc.StatusCode.INVALID_ARGUMENT, "100"),
    (
        wire.GenerateRequest(input=source(), decoding=common.DecodingOptions(num_beams=17)),
        grpc.StatusCode.INVALID_ARGUMENT,
        "num_beams",
    ),
    (
        wire.GenerateRequest(input=source(), decoding=common.DecodingOptions(model=77)),
        grpc.StatusCode.INVALID_ARGUMENT,
        "decoding.model has no value 77",
    ),
    (
        wire.GenerateRequest(input=source(), decoding=common.DecodingOptions(forced_words=["paris"] * 17)),
        grpc.StatusCode.INVALID_ARGUMENT,
        "decoding.forced_words, their number, is 17; it must be from 0 to 16",
    ),
    (
        wire.GenerateRequest(
            input=source(), decoding=common.DecodingOptions(candidate_ranking=common.CandidateRanking())
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "decoding.candidate_ranking.num_candidates is 0; it must be from 2 to 16",
    ),
]


async def test_bad_requests_get_their_status_and_name_the_field(tiny: Any) -> None:
    async with served(tiny) as stub:
        for request, code, message in _BAD:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Generate(request)
            assert refused.value.code() is code
            assert message in refused.value.details()


async def test_a_deadline_that_has_passed_is_deadline_exceeded(tiny: Any) -> None:
    async with served(tiny) as stub:
        request = wire.GenerateRequest(
            input=source(), decoding=common.DecodingOptions(min_new_tokens=120, max_new_tokens=120)
        )
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Generate(request, timeout=0.001)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def slow(tiny: Any) -> Any:
    model = tiny.fake(vocab_size=len(tiny.word_piece()))
    model.before_step = lambda: time.sleep(0.01)
    return model


ENDLESS = common.DecodingOptions(min_new_tokens=120, max_new_tokens=120)


async def test_a_cancelled_call_frees_its_rows(tiny: Any) -> None:
    metrics = generator_metrics()
    async with served(tiny, slow(tiny)) as stub:
        for method, kind in (
            (stub.Generate, wire.GenerateRequest),
            (stub.StreamGenerate, wire.StreamGenerateRequest),
        ):
            call = method(kind(input=source(), decoding=ENDLESS))
            if method is stub.StreamGenerate:
                await anext(aiter(call))
            async with asyncio.timeout(20):
                while not metrics.decoder_rows._value.get():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                call.cancel()
                while metrics.decoder_rows._value.get():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)


async def test_a_full_server_refuses_with_resource_exhausted_and_answers_again_later(tiny: Any) -> None:
    async with served(tiny, slow(tiny), admission=AdmissionConfig(max_items=1)) as stub:
        running = stub.Generate(wire.GenerateRequest(input=source(), decoding=ENDLESS))
        await asyncio.sleep(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(wire.GenerateRequest(input=source()))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await running
        await stub.Generate(wire.GenerateRequest(input=source()))
