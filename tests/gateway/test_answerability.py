"""Reranking by the generator's odds that a passage holds an answer, at the gateway."""

import asyncio
import math

import grpc
import grpc.aio
import pytest

from protos.rag.v1 import common_pb2, gateway_pb2, retriever_pb2
from serving.errors import FailedPrecondition
from tests.gateway.fakes import PRIORS
from tests.gateway.refusals import check_option_refused, refusal

QUESTION = "What is the capital of France?"
TEMPERATURE = 0.5  # Of the fake retriever's priors, PRIORS.
NO_ANSWERS = {"p0": 0.9, "p1": 0.5, "p2": 0.2}


@pytest.fixture
def reranking(house):
    house.generator.no_answers = dict(NO_ANSWERS)
    return house


def options(*, method="METHOD_ANSWERABILITY", num_candidates=0, weight=None, **given):
    rerank = common_pb2.Rerank(method=method, num_candidates=num_candidates, answerability_weight=weight)
    return common_pb2.RetrievalOptions(rerank=rerank, **given)


def ask(**given):
    return gateway_pb2.AnswerRequest(question=QUESTION, options=gateway_pb2.AnswerOptions(retrieval=options(**given)))


def search(*texts, **given):
    queries = [retriever_pb2.Query(text=text) for text in texts]
    return retriever_pb2.RetrieveRequest(queries=queries, options=options(**given))


def check_passages(passages):
    """At weight 1: tau * log(prior) + log-odds, shifted so that the first hit's first part is its score, 3."""
    odds = {name: math.log((1 - p) / p) for name, p in NO_ANSWERS.items()}
    scores = {f"p{i}": 3 + TEMPERATURE * math.log(p / PRIORS[0]) + odds[f"p{i}"] for i, p in enumerate(PRIORS)}
    assert [each.passage.id for each in passages] == ["p2", "p1"]
    assert [each.rank for each in passages] == [1, 2]
    assert [each.score for each in passages] == pytest.approx([scores["p2"], scores["p1"]])
    assert [each.rerank_score for each in passages] == pytest.approx([odds["p2"], odds["p1"]])
    assert passages[0].log_prior - passages[1].log_prior == pytest.approx((scores["p2"] - scores["p1"]) / TEMPERATURE)
    assert sum(math.exp(each.log_prior) for each in passages) == pytest.approx(1.0)


async def test_an_answer_is_made_from_the_passages_that_hold_one(reranking):
    reply = await reranking.answers.Answer(ask(top_k=2, weight=1.0))
    check_passages(sorted((each.retrieved for each in reply.answer.citations), key=lambda hit: hit.rank))
    (generate,) = reranking.generator.script.seen
    assert [each.id for each in generate.request.input.passages] == ["p2", "p1"]
    assert common_pb2.STAGE_RERANK in {timing.stage for timing in reply.timings}


async def test_every_candidate_is_read_in_one_call_as_it_will_be_for_the_answer(reranking):
    await reranking.answers.Answer(ask())
    (scored,), (generate,) = reranking.generator.scored, reranking.generator.script.seen
    assert (scored.score_no_answer, scored.score_question, len(scored.answers)) == (True, False, 0)
    read, for_answer = (
        {each.id: (each.title, each.text) for each in given.input.passages} for given in (scored, generate.request)
    )
    assert scored.input.question == generate.request.input.question == QUESTION
    assert read == for_answer


async def test_a_little_weight_changes_little_and_none_nothing(reranking):
    for given, expected in ((None, 0.085), (0.0, 0.0)):
        answer = (await reranking.answers.Answer(ask(weight=given))).answer
        first = next(each.retrieved for each in answer.citations if each.retrieved.passage.id == "p0")
        assert first.score == pytest.approx(3.0 + expected * math.log(0.1 / 0.9))
    ids = [each.id for each in reranking.generator.script.seen[1].request.input.passages]
    assert ids == ["p0", "p1", "p2"]


async def test_the_retriever_makes_the_prior_that_the_reranking_goes_on_from(reranking):
    given = {"top_k": 2, "num_candidates": 7, "min_score": -25.0, "temperature": 2.0, "collection": "wiki"}
    await reranking.answers.Answer(ask(**given))
    (retrieve,) = reranking.retriever.script.seen
    assert retrieve.request.options == common_pb2.RetrievalOptions(top_k=7, collection="wiki", temperature=2.0)


@pytest.mark.parametrize(("given", "expected"), [({}, 10), ({"top_k": 50}, 50), ({"num_candidates": 3}, 5)])
async def test_ten_candidates_are_read_unless_more_passages_are_wanted(reranking, given, expected):
    await reranking.answers.Answer(ask(**given))
    assert reranking.retriever.script.seen[0].request.options.top_k == expected


async def test_the_least_score_is_about_the_reranked_one(reranking):
    answer = (await reranking.answers.Answer(ask(min_score=3.0, weight=1.0))).answer
    assert [each.retrieved.passage.id for each in answer.citations] == ["p2"]


async def test_a_search_at_the_gateway_is_reranked_too(reranking):
    reply = await reranking.retrieval.Retrieve(search(QUESTION, " ", top_k=2, weight=1.0))
    check_passages(reply.results[0].passages)
    assert "rerank by ANSWERABILITY needs it" in reply.results[1].status.message


async def test_a_generator_that_was_never_taught_to_answer_nothing_is_named_as_what_is_missing(house):
    error = await refusal(house.answers.Answer(ask()))
    assert isinstance(error, FailedPrecondition)
    assert (error.reason, error.field) == ("NEVER_ABSTAINS", "options.retrieval.rerank.method")
    assert "rerank by ANSWERABILITY: the checkpoint 'fake' was not taught to answer nothing" in error.message
    reply = await house.retrieval.Retrieve(search(QUESTION))
    assert reply.results[0].status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert reply.results[0].status.reason == "NEVER_ABSTAINS"


async def test_a_reranking_ends_with_the_callers_deadline(reranking):
    reranking.generator.script.hook = asyncio.Event().wait
    for call in (
        reranking.answers.Answer(ask(), timeout=0.5),
        reranking.retrieval.Retrieve(search(QUESTION), timeout=0.5),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reranking.generator.script.seen == []


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        ({"weight": -0.1}, "rerank.answerability_weight", "at least 0"),
        ({"weight": math.nan}, "rerank.answerability_weight", "finite"),
        (
            {"weight": 0.1, "method": "METHOD_QUESTION_LIKELIHOOD"},
            "rerank.answerability_weight",
            "no meaning for QUESTION_LIKELIHOOD",
        ),
        ({"num_candidates": 101}, "rerank.num_candidates", "0 to 100"),
        ({"diversity": common_pb2.Diversity()}, "diversity", "ANSWERABILITY"),
    ],
)
async def test_what_cannot_be_reranked_is_refused_naming_the_callers_field(reranking, given, name, words):
    await check_option_refused(reranking, ask(**given), search("q", **given), name, words)
