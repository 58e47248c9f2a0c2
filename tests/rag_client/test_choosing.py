"""Reranking, candidate ranking and comparing index generations, to the wire and back."""

import asyncio

import pytest

from protos.rag.v1 import common_pb2, gateway_pb2
from rag_client import AsyncRagClient, CandidateRanking, FinishReason, RagClient, Rerank, RerankMethod
from rag_client.convert import answer
from rag_client.errors import InvalidRequest
from rag_client.wire_answers import answer_fields


def test_ranking_and_reranking_reach_their_place_in_the_request():
    options = answer_fields(
        "q",
        {
            "candidate_ranking": CandidateRanking(4, retrieval_weight=0.0),
            "rerank": Rerank(RerankMethod.QUESTION_LIKELIHOOD, num_candidates=30),
        },
    )["options"]
    assert options.decoding.candidate_ranking == common_pb2.CandidateRanking(num_candidates=4, retrieval_weight=0.0)
    assert not options.decoding.candidate_ranking.HasField("generation_weight")
    assert options.retrieval.rerank.method == common_pb2.Rerank.METHOD_QUESTION_LIKELIHOOD
    assert options.retrieval.rerank.num_candidates == 30


def test_the_weight_of_answerability_is_sent_where_it_is_given():
    given = [Rerank("answerability", answerability_weight=0.0), Rerank(RerankMethod.ANSWERABILITY)]
    weighed, plain = (answer_fields("q", {"rerank": each})["options"].retrieval.rerank for each in given)
    assert weighed == common_pb2.Rerank(method="METHOD_ANSWERABILITY", answerability_weight=0.0)
    assert not plain.HasField("answerability_weight")


def test_what_is_not_given_is_not_sent():
    options = answer_fields("q", {})["options"]
    assert not options.decoding.HasField("candidate_ranking")
    assert not options.retrieval.HasField("rerank")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"rerank": Rerank("magic")}, "rerank.method"),
        ({"rerank": Rerank("cross_encoder", num_candidates=-1)}, "num_candidates"),
        ({"candidate_ranking": CandidateRanking(-1)}, "num_candidates"),
    ],
)
def test_a_value_that_the_wire_cannot_carry_is_refused_naming_the_field(given, field):
    with pytest.raises(InvalidRequest) as caught:
        answer_fields("q", given)
    assert caught.value.field == field


def test_candidates_come_back_with_their_scores_and_a_cached_answer_says_so():
    candidate = common_pb2.Hypothesis(
        text="Paris",
        log_probability=-0.5,
        posteriors=[1.0],
        retrieval_score=2.0,
        ranking_score=1.5,
        confidence=0.75,
        finish_reason="FINISH_REASON_LENGTH",
        num_new_tokens=3,
    )
    plain = common_pb2.Hypothesis(text="Lyon")
    got = answer(gateway_pb2.AnswerResponse(answer={"from_cache": True, "hypotheses": [candidate, plain]}))
    assert got.from_cache
    first, second = got.hypotheses
    assert (first.text, first.retrieval_score, first.ranking_score, first.confidence) == ("Paris", 2.0, 1.5, 0.75)
    assert (first.finish_reason, first.num_new_tokens, first.posteriors) == (FinishReason.LENGTH, 3, (1.0,))
    assert (second.retrieval_score, second.ranking_score) == (None, None)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_index_generations_are_compared_in_the_order_given(server, gateway, kind):
    if kind == "async":
        async with AsyncRagClient(server.address) as client:
            answers = await client.compare("q", [5, 3], top_k=2)
    else:
        with RagClient(server.address) as blocking:
            answers = await asyncio.to_thread(blocking.compare, "q", [5, 3], top_k=2)
    assert [each.provenance.index_generation for each in answers] == [5, 3]
    assert [each.text for each in answers] == ["Paris", "Paris"]
    assert (list(gateway.requests[0].index_generations), gateway.requests[0].options.retrieval.top_k) == ([5, 3], 2)
