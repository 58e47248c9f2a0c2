import math

import grpc
import grpc.aio
import pytest

from protos.rag.v1 import common_pb2, gateway_pb2, retriever_pb2
from serving.errors import Overloaded
from tests.gateway.refusals import check_option_refused, refusal

QUESTION = "What is the capital of France?"
LIKELIHOOD = common_pb2.Rerank.METHOD_QUESTION_LIKELIHOOD


@pytest.fixture
def reranking(house):
    house.generator.likelihoods = {"p0": -30.0, "p1": -20.0, "p2": -21.0}
    return house


def options(method=LIKELIHOOD, num_candidates=0, **given):
    return common_pb2.RetrievalOptions(rerank=common_pb2.Rerank(method=method, num_candidates=num_candidates), **given)


def ask(kind=gateway_pb2.AnswerRequest, **given):
    return kind(question=QUESTION, options=gateway_pb2.AnswerOptions(retrieval=options(**given)))


def search(*texts, **given):
    return retriever_pb2.RetrieveRequest(
        queries=[retriever_pb2.Query(text=text) for text in texts], options=options(**given)
    )


def check_passages(passages):
    assert [each.passage.id for each in passages] == ["p1", "p2"]
    assert [each.rank for each in passages] == [1, 2]
    assert [each.score for each in passages] == [-20.0, -21.0]
    assert [each.rerank_score for each in passages] == [-20.0, -21.0]
    assert [each.dense_score for each in passages] == pytest.approx([0.8, 0.7])
    total = math.exp(-20.0) + math.exp(-21.0)
    assert [each.log_prior for each in passages] == pytest.approx([-20 - math.log(total), -21 - math.log(total)])


async def test_an_answer_is_made_from_the_passages_that_make_the_question_most_likely(reranking):
    await reranking.answers.Answer(ask(top_k=2))
    (generate,) = reranking.generator.script.seen
    assert [passage.id for passage in generate.request.input.passages] == ["p1", "p2"]
    assert generate.request.input.passages[0].log_prior == pytest.approx(-math.log(1 + math.exp(-1)))


async def test_the_retriever_is_asked_for_the_candidates_without_what_concerns_the_reranked_hits(reranking):
    given = {"top_k": 2, "num_candidates": 7, "min_score": -25.0, "temperature": 2.0, "collection": "wiki"}
    await reranking.answers.Answer(ask(**given))
    (retrieve,) = reranking.retriever.script.seen
    assert retrieve.request.options == common_pb2.RetrievalOptions(top_k=7, collection="wiki")


@pytest.mark.parametrize(("given", "expected"), [({}, 20), ({"top_k": 50}, 50), ({"num_candidates": 3}, 5)])
async def test_at_least_as_many_candidates_are_read_as_passages_are_wanted(reranking, given, expected):
    await reranking.answers.Answer(ask(**given))
    assert reranking.retriever.script.seen[0].request.options.top_k == expected


async def test_the_generator_scores_the_question_under_every_candidate_in_one_call(reranking):
    await reranking.answers.Answer(ask(top_k=2))
    (request,) = reranking.generator.scored
    assert request.score_question
    assert request.input.question == QUESTION
    assert [each.id for each in request.input.passages] == ["p0", "p1", "p2"]
    assert (request.input.passages[1].title, request.input.passages[1].text) == ("Title 1", "Text 1")
    assert len(request.answers) == 0


async def test_a_stream_tells_the_stage_and_sends_the_reranked_passages(reranking):
    request = ask(gateway_pb2.StreamAnswerRequest, top_k=2)
    events = [event async for event in reranking.answers.StreamAnswer(request)]
    assert [event.WhichOneof("event") for event in events][:3] == ["stage", "stage", "passages"]
    assert events[1].stage.timing.stage == common_pb2.STAGE_RERANK
    check_passages(events[2].passages.passages)


async def test_candidates_are_ranked_against_the_reranked_passages(reranking):
    reranking.retriever.text_vectors = {"Paris": [1.0, 0.0]}
    request = ask(top_k=1)
    request.options.decoding.candidate_ranking.num_candidates = 2
    answer = (await reranking.answers.Answer(request)).answer
    assert answer.hypotheses[0].retrieval_score == pytest.approx(0.0)  # p1 = (0, 1) is orthogonal to Paris.


async def test_hits_under_the_least_likelihood_leave_no_passages(reranking):
    answer = (await reranking.answers.Answer(ask(min_score=-10.0))).answer
    assert answer.finish_reason == common_pb2.FINISH_REASON_NO_PASSAGES


async def test_a_search_at_the_gateway_is_reranked_too(reranking):
    reply = await reranking.retrieval.Retrieve(search(QUESTION, top_k=2))
    check_passages(reply.results[0].passages)
    assert reply.provenance.index_generation == 7
    assert common_pb2.STAGE_RERANK in {timing.stage for timing in reply.timings}


async def test_a_query_that_cannot_be_reranked_fails_by_itself(reranking):
    reply = await reranking.retrieval.Retrieve(search(" ", QUESTION))
    assert reply.results[0].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "query.text is empty" in reply.results[0].status.message
    assert len(reply.results[0].passages) == 0
    assert [each.passage.id for each in reply.results[1].passages] == ["p1", "p2", "p0"]


async def test_a_failed_query_is_not_read_again(reranking):
    reranking.retriever.item_status.CopyFrom(common_pb2.Status(code=5, message="gone"))
    reply = await reranking.retrieval.Retrieve(search(QUESTION))
    assert reply.results[0].status.message == "gone"
    assert reranking.generator.scored == []


async def test_a_search_with_a_cross_encoder_is_the_retrievers_own_work(reranking):
    request = search(QUESTION, method=common_pb2.Rerank.METHOD_CROSS_ENCODER, num_candidates=9)
    reply = await reranking.retrieval.Retrieve(request)
    assert reranking.retriever.script.seen[0].request == request
    assert [each.passage.id for each in reply.results[0].passages] == ["p0", "p1", "p2"]
    await reranking.answers.Answer(gateway_pb2.AnswerRequest(question="q", options={"retrieval": request.options}))
    assert reranking.retriever.script.seen[1].request.options == request.options
    assert reranking.generator.scored == []


async def test_an_overloaded_retriever_is_told_as_such(reranking):
    async def refuse():
        raise Overloaded("queue is full", retry_after_seconds=1.0)

    reranking.retriever.script.hook = refuse
    assert isinstance(await refusal(reranking.retrieval.Retrieve(search(QUESTION))), Overloaded)


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        ({"num_candidates": 101}, "rerank.num_candidates", "0 to 100"),
        ({"top_k": 0}, "top_k", "1 to 100"),
        ({"top_k": 101}, "top_k", "1 to 100"),
        ({"temperature": 0.0}, "temperature", "> 0"),
        ({"min_score": math.nan}, "min_score", "finite"),
        ({"diversity": common_pb2.Diversity()}, "diversity", "QUESTION_LIKELIHOOD"),
    ],
)
async def test_what_cannot_be_reranked_is_refused_naming_the_callers_field(reranking, given, name, words):
    await check_option_refused(reranking, ask(**given), search("q", **given), name, words)
