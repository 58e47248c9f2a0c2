import asyncio

import grpc
import grpc.aio
import pytest

from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import Overloaded

QUESTION = "What is the capital of France?"


def ask(**options):
    return gateway_pb2.StreamAnswerRequest(question=QUESTION, options=gateway_pb2.AnswerOptions(**options))


def kind(event):
    name = event.WhichOneof("event")
    return common_pb2.Stage.Name(event.stage.timing.stage) if name == "stage" else name


async def test_a_stream_sends_stages_passages_deltas_and_once_last_the_answer(house):
    events = [event async for event in house.answers.StreamAnswer(ask())]
    assert [kind(event) for event in events] == [
        "STAGE_RETRIEVE",
        "passages",
        "delta",
        "delta",
        "STAGE_GENERATE",
        "final",
    ]
    assert [passage.passage.id for passage in events[1].passages.passages] == ["p0", "p1", "p2"]
    assert events[1].passages.provenance.index_generation == 7
    assert events[2].delta.text + events[3].delta.text == "Paris"
    assert events[-1].final.answer.text == "Paris"
    assert events[-1].final.answer.citations[0].retrieved.passage.id == "p1"


async def test_a_stream_is_decoded_greedily_by_rag_token_unless_told_otherwise(house):
    [event async for event in house.answers.StreamAnswer(ask())]
    decoding = house.generator.script.seen[0].request.decoding
    assert decoding.model == common_pb2.DECODING_MODEL_RAG_TOKEN
    assert decoding.num_beams == 1


async def test_a_rag_sequence_stream_has_no_deltas(house):
    decoding = common_pb2.DecodingOptions(model="DECODING_MODEL_RAG_SEQUENCE")
    events = [event async for event in house.answers.StreamAnswer(ask(decoding=decoding))]
    assert [kind(event) for event in events] == ["STAGE_RETRIEVE", "passages", "STAGE_GENERATE", "final"]
    assert house.generator.script.seen[0].request.decoding.num_beams == 0


async def test_a_stream_without_passages_ends_with_no_passages(house):
    house.retriever.num_passages = 0
    events = [event async for event in house.answers.StreamAnswer(ask())]
    assert [kind(event) for event in events] == ["STAGE_RETRIEVE", "passages", "final"]
    assert events[-1].final.answer.finish_reason == common_pb2.FINISH_REASON_NO_PASSAGES


async def test_an_abstaining_streams_last_word_is_empty(house):
    events = [event async for event in house.answers.StreamAnswer(ask(min_confidence=0.95))]
    assert events[-1].final.answer.finish_reason == common_pb2.FINISH_REASON_ABSTAINED
    assert events[-1].final.answer.text == ""


async def test_leaving_a_stream_cancels_the_decoding(house):
    decoding = asyncio.Event()

    async def hang():
        decoding.set()
        await asyncio.Event().wait()

    house.generator.script.hook = hang
    call = house.answers.StreamAnswer(ask(), timeout=30)
    async for event in call:
        if kind(event) == "delta" and event.delta.text == "is":
            break
    await decoding.wait()
    call.cancel()
    await asyncio.wait_for(house.generator.script.cancelled.wait(), 10)


async def test_a_failure_after_the_first_tokens_ends_the_stream_with_its_error(house):
    async def refuse():
        raise Overloaded("queue is full", retry_after_seconds=1.0)

    house.generator.script.hook = refuse
    texts = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for event in house.answers.StreamAnswer(ask()):
            texts.append(event.delta.text)
    assert "".join(texts) == "Paris"
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_empty_question_is_refused_before_anything_is_retrieved(house):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [event async for event in house.answers.StreamAnswer(gateway_pb2.StreamAnswerRequest())]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert house.retriever.script.seen == []
