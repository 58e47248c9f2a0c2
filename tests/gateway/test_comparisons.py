import asyncio

import pytest

from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import InvalidRequest, NotFound
from tests.gateway.refusals import refusal


def compare(*index_generations, question="q", **options):
    return gateway_pb2.CompareAnswersRequest(
        question=question, options=gateway_pb2.AnswerOptions(**options), index_generations=index_generations
    )


async def test_every_index_generation_answers_in_the_order_asked(house):
    retrieval = common_pb2.RetrievalOptions(top_k=3)
    reply = await house.answers.CompareAnswers(compare(5, 3, 9, retrieval=retrieval))
    assert [each.provenance.index_generation for each in reply.answers] == [5, 3, 9]
    assert {each.answer.text for each in reply.answers} == {"Paris"}
    assert len({each.answer.answer_id for each in reply.answers}) == 3
    assert {seen.request.options.top_k for seen in house.retriever.script.seen} == {3}


async def test_one_that_is_not_there_ends_the_comparison_and_the_others_with_it(house):
    others = asyncio.Event()

    async def refuse_the_second():
        if len(house.retriever.script.seen) == 2:
            raise NotFound("no index generation 3", reason="INDEX_GENERATION_NOT_FOUND")
        await others.wait()

    house.retriever.script.hook = refuse_the_second
    error = await refusal(house.answers.CompareAnswers(compare(5, 3)))
    assert isinstance(error, NotFound)
    assert error.reason == "INDEX_GENERATION_NOT_FOUND"
    await asyncio.wait_for(house.retriever.script.cancelled.wait(), 10)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (compare(1), "index_generations"),
        (compare(*range(9)), "index_generations"),
        (compare(1, 2, question=" "), "question"),
        (
            compare(1, 2, retrieval=common_pb2.RetrievalOptions(index_generation=3)),
            "options.retrieval.index_generation",
        ),
    ],
)
async def test_a_comparison_that_makes_no_sense_is_refused_naming_the_field(house, request_, field):
    error = await refusal(house.answers.CompareAnswers(request_))
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert house.retriever.script.seen == []
