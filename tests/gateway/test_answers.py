import asyncio

import grpc
import grpc.aio
import pytest
from prometheus_client import REGISTRY

from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import FailedPrecondition, InvalidRequest, NotFound, Overloaded
from tests.gateway.refusals import refusal

QUESTION = "What is the capital of France?"


def ask(**options):
    return gateway_pb2.AnswerRequest(question=QUESTION, options=gateway_pb2.AnswerOptions(**options))


async def forever():
    await asyncio.Event().wait()


async def test_an_answer_cites_its_passages_by_posterior_with_their_own_scores(house):
    reply = await house.answers.Answer(ask())
    answer = reply.answer
    assert answer.text == "Paris"
    assert [cited.retrieved.passage.id for cited in answer.citations] == ["p1", "p2", "p0"]
    assert [cited.posterior for cited in answer.citations] == [0.7, 0.2, 0.1]
    assert [round(cited.prior, 6) for cited in answer.citations] == [0.3, 0.2, 0.5]
    assert answer.citations[0].retrieved.dense_score == pytest.approx(0.8)
    assert list(answer.hypotheses[0].posteriors) == [0.7, 0.2, 0.1]
    assert answer.answer_id


async def test_an_answer_carries_provenance_and_timings_of_both_stages(house):
    reply = await house.answers.Answer(ask())
    assert (reply.provenance.index_generation, reply.provenance.encoder) == (7, "fake-encoder")
    assert reply.provenance.generator == "fake-generator"
    assert reply.provenance.build_version
    timings = {common_pb2.Stage.Name(each.stage): each.duration_seconds for each in reply.timings}
    assert timings["STAGE_QUEUE"] == 0.5
    assert timings["STAGE_SEARCH"] == 0.5
    assert timings["STAGE_DECODE"] == 0.125
    assert timings["STAGE_TOTAL"] >= timings["STAGE_RETRIEVE"] + timings["STAGE_GENERATE"]
    assert timings["STAGE_TOTAL"] < 9.0


async def test_the_stages_get_the_options_of_the_question(house):
    request = ask(
        retrieval=common_pb2.RetrievalOptions(collection="wiki", top_k=3, min_sequence=9),
        decoding=common_pb2.DecodingOptions(num_beams=4),
        explanation=common_pb2.ExplanationOptions(leave_one_out=True),
    )
    await house.answers.Answer(request)
    (retrieve,), (generate,) = house.retriever.script.seen, house.generator.script.seen
    assert retrieve.request.options == request.options.retrieval
    assert retrieve.request.queries[0].text == QUESTION
    assert generate.request.decoding == request.options.decoding
    assert generate.request.explanation.leave_one_out
    assert [passage.text for passage in generate.request.input.passages] == ["Text 0", "Text 1", "Text 2"]
    assert generate.request.input.passages[1].score == 2.0


async def test_nothing_retrieved_gives_no_passages_and_asks_no_generator(house):
    house.retriever.num_passages = 0
    answer = (await house.answers.Answer(ask())).answer
    assert answer.finish_reason == common_pb2.FINISH_REASON_NO_PASSAGES
    assert (answer.text, answer.raw_text, len(answer.citations)) == ("", "", 0)
    assert house.generator.script.seen == []


async def test_a_confidence_under_the_threshold_abstains_without_any_text(house):
    answer = (await house.answers.Answer(ask(min_confidence=0.9))).answer
    assert answer.finish_reason == common_pb2.FINISH_REASON_ABSTAINED
    assert (answer.text, answer.raw_text, len(answer.hypotheses)) == ("", "", 0)
    assert answer.confidence == pytest.approx(0.8)
    assert len(answer.citations) == 3


async def test_a_confidence_at_the_threshold_is_an_answer(house):
    answer = (await house.answers.Answer(ask(min_confidence=0.8))).answer
    assert answer.text == "Paris"


async def test_a_closed_book_question_retrieves_nothing(house):
    decoding = common_pb2.DecodingOptions(model="DECODING_MODEL_CLOSED_BOOK")
    answer = (await house.answers.Answer(ask(decoding=decoding))).answer
    assert answer.text == "Paris"
    assert house.retriever.script.seen == []


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (gateway_pb2.AnswerRequest(question="  "), "question", "must not be blank"),
        (gateway_pb2.AnswerRequest(question="x" * 8193), "question", "at most 8192"),
        (ask(min_confidence=1.5), "options.min_confidence", "[0, 1]"),
    ],
)
async def test_a_bad_question_is_refused_naming_the_field(house, request_, field, words):
    error = await refusal(house.answers.Answer(request_))
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert words in error.message


async def test_a_refusal_of_the_retriever_keeps_its_meaning_in_the_askers_own_fields(house):
    async def refuse():
        raise InvalidRequest("options.top_k must be 1 to 100, not 0", field="options.top_k", reason="TOO_SMALL")

    house.retriever.script.hook = refuse
    error = await refusal(house.answers.Answer(ask()))
    assert isinstance(error, InvalidRequest)
    assert (error.field, error.reason) == ("options.retrieval.top_k", "TOO_SMALL")
    assert error.message == "options.top_k must be 1 to 100, not 0"


async def test_a_refusal_of_the_generator_keeps_its_meaning_in_the_askers_own_fields(house):
    async def refuse():
        raise InvalidRequest("decoding.num_beams is at most 16", field="decoding.num_beams")

    house.generator.script.hook = refuse
    error = await refusal(house.answers.Answer(ask()))
    assert error.field == "options.decoding.num_beams"


async def test_an_overloaded_generator_is_named_and_its_retry_time_passes_on(house):
    async def refuse():
        raise Overloaded("queue is full", retry_after_seconds=1.5)

    house.generator.script.hook = refuse
    error = await refusal(house.answers.Answer(ask()))
    assert isinstance(error, Overloaded)
    assert (error.reason, error.retry_after_seconds) == ("QUEUE_FULL", 1.5)
    assert error.message == f"generator at {house.generator_server.address}: queue is full"


@pytest.mark.parametrize("error", [NotFound("no collection 'x'"), FailedPrecondition("encoder differs")])
async def test_the_state_of_a_collection_is_told_in_the_retrievers_words(house, error):
    async def refuse():
        raise error

    house.retriever.script.hook = refuse
    told = await refusal(house.answers.Answer(ask()))
    assert type(told) is type(error)
    assert told.message == error.message


async def test_a_query_that_fails_within_its_batch_is_the_answers_error(house):
    house.retriever.item_status.CopyFrom(common_pb2.Status(code=5, message="no such generation", reason="NOT_FOUND"))
    error = await refusal(house.answers.Answer(ask()))
    assert isinstance(error, NotFound)
    assert error.message == "no such generation"


async def test_a_dead_retriever_is_named_in_an_unavailable_error(house):
    address = house.retriever_server.address
    await house.retriever_server.server.stop(None)
    error = await refusal(house.answers.Answer(ask()))
    assert error.message.startswith(f"retriever at {address} is not reachable: ")
    assert error.reason == "RETRIEVER_UNREACHABLE"


async def test_killing_the_retriever_during_an_ask_gives_unavailable(house):
    asked = asyncio.Event()

    async def hang():
        asked.set()
        await forever()

    house.retriever.script.hook = hang
    call = house.answers.Answer(ask(), timeout=30)
    await asked.wait()
    await house.retriever_server.server.stop(None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "retriever at " in caught.value.details()


async def test_stages_share_the_callers_deadline_and_leave_a_reserve(house):
    await house.answers.Answer(ask(), timeout=20)
    (retrieve,), (generate,) = house.retriever.script.seen, house.generator.script.seen
    assert 0 < retrieve.time_remaining <= 19.6  # 20 less the reserves; gRPC rounds timeouts up.
    assert 0 < generate.time_remaining <= 21


async def test_a_retriever_that_takes_all_the_time_ends_with_deadline_exceeded(house):
    house.retriever.script.hook = forever
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.answers.Answer(ask(), timeout=0.4)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert house.generator.script.seen == []


async def test_without_a_callers_deadline_the_stages_get_the_default_one(house):
    await house.answers.Answer(ask())
    assert 0 < house.generator.script.seen[0].time_remaining <= 61


@pytest.mark.parametrize("stage", ["retriever", "generator"])
async def test_cancelling_an_answer_cancels_the_stage_under_way(house, stage):
    asked = asyncio.Event()
    script = getattr(house, stage).script

    async def hang():
        asked.set()
        await forever()

    script.hook = hang
    call = house.answers.Answer(ask(), timeout=30)
    await asked.wait()
    call.cancel()
    await asyncio.wait_for(script.cancelled.wait(), 10)


async def test_the_request_id_reaches_both_backends(house):
    await house.answers.Answer(ask(), metadata=(("x-request-id", "abc-123"),))
    assert house.retriever.script.seen[0].metadata["x-request-id"] == "abc-123"
    assert house.generator.script.seen[0].metadata["x-request-id"] == "abc-123"


async def test_answers_are_counted_by_finish_reason_and_model_and_errors_by_service_and_reason(house):
    def value(name, **labels):
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def state():
        return (
            value("rag_gateway_answers_total", finish_reason="end_of_sequence", model="rag_sequence"),
            value("rag_gateway_answer_stage_seconds_count", stage="generate"),
            value("rag_gateway_answer_passages_count"),
            value("rag_gateway_answer_confidence_ratio_count"),
            value("rag_gateway_downstream_errors_total", service="retriever", reason="NOT_FOUND"),
        )

    before = state()
    await house.answers.Answer(ask())

    async def refuse():
        raise NotFound("no such collection")

    house.retriever.script.hook = refuse
    await refusal(house.answers.Answer(ask()))
    assert [b - a for a, b in zip(before, state(), strict=True)] == [1, 1, 1, 1, 1]


async def test_info_leaves_out_a_backend_that_does_not_answer(house):
    info = await house.answers.GetInfo(gateway_pb2.GatewayServiceGetInfoRequest())
    assert (info.service.service, info.retriever.service.service) == ("gateway", "retriever")
    assert {limit.name for limit in info.service.limits} >= {"max_question_bytes", "max_message_bytes"}
    await house.generator_server.server.stop(None)
    info = await house.answers.GetInfo(gateway_pb2.GatewayServiceGetInfoRequest())
    assert info.HasField("retriever")
    assert not info.HasField("generator")
