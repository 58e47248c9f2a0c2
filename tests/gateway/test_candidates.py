import numpy as np
import pytest
from prometheus_client import REGISTRY

from gateway.ranking import retrieval_scores
from protos.rag.v1 import common_pb2, gateway_pb2, retriever_pb2
from serving.errors import FailedPrecondition, InvalidRequest
from tests.gateway.refusals import refusal

QUESTION = "What is the capital of France?"


@pytest.fixture
def ranked(house):
    """The generator prefers Lyon a little, the encoder Paris by far."""
    house.generator.candidates = [
        common_pb2.Hypothesis(
            text="Lyon", raw_text="lyon", log_probability=-0.1, posteriors=[0.7, 0.2, 0.1], confidence=0.9
        ),
        common_pb2.Hypothesis(
            text="Paris",
            raw_text="paris",
            log_probability=-0.5,
            posteriors=[0.1, 0.2, 0.7],
            confidence=0.6,
            finish_reason="FINISH_REASON_LENGTH",
            num_new_tokens=2,
        ),
    ]
    house.retriever.text_vectors = {"Lyon": [-1.0, 0.0], "Paris": [1.2, 1.6]}
    return house


def ask(kind=gateway_pb2.AnswerRequest, *, model=None, explanation=None, min_confidence=None, retrieval=None, **given):
    ranking = common_pb2.CandidateRanking(**{"num_candidates": 2} | given)
    decoding = common_pb2.DecodingOptions(model=model, candidate_ranking=ranking)
    options = gateway_pb2.AnswerOptions(
        decoding=decoding, explanation=explanation, min_confidence=min_confidence, retrieval=retrieval
    )
    return kind(question=QUESTION, options=options)


async def test_the_candidate_that_the_encoder_favours_becomes_the_answer_with_all_that_is_its_own(ranked):
    answer = (await ranked.answers.Answer(ask())).answer
    assert (answer.text, answer.raw_text, answer.log_probability) == ("Paris", "paris", -0.5)
    assert (answer.confidence, answer.num_new_tokens) == (0.6, 2)
    assert answer.finish_reason == common_pb2.FINISH_REASON_LENGTH
    assert [cited.retrieved.passage.id for cited in answer.citations] == ["p2", "p1", "p0"]
    assert [cited.posterior for cited in answer.citations] == [0.7, 0.2, 0.1]


async def test_all_candidates_come_back_best_first_with_the_scores_that_ranked_them(ranked):
    answer = (await ranked.answers.Answer(ask(generation_weight=2.0, retrieval_weight=0.5))).answer
    assert [each.text for each in answer.hypotheses] == ["Paris", "Lyon"]
    best, other = ranked.retriever.text_vectors["Paris"], ranked.retriever.text_vectors["Lyon"]
    passages = np.array(ranked.retriever.passage_vectors, np.float32)
    expected = retrieval_scores(np.array([best, other], np.float32), passages, temperature=0.5, is_cosine=True)
    assert [each.retrieval_score for each in answer.hypotheses] == pytest.approx(expected, abs=1e-6)
    for each in answer.hypotheses:
        assert each.ranking_score == pytest.approx(2.0 * each.log_probability + 0.5 * each.retrieval_score)
    assert list(answer.hypotheses[1].posteriors) == [0.1, 0.2, 0.7]  # In the citations' order.


async def test_without_weight_on_retrieval_the_generators_choice_stands(ranked):
    answer = (await ranked.answers.Answer(ask(retrieval_weight=0.0))).answer
    assert (answer.text, answer.confidence) == ("Lyon", 0.9)
    assert answer.hypotheses[0].HasField("retrieval_score")


async def test_the_inner_product_is_taken_where_the_collection_is_compared_by_it(ranked):
    ranked.retriever.metric = retriever_pb2.METRIC_INNER_PRODUCT
    cosine = (await ranked.answers.Answer(ask())).answer.hypotheses[0].retrieval_score
    ranked.retriever.text_vectors["Paris"] = [0.6, 0.8]
    assert (await ranked.answers.Answer(ask())).answer.hypotheses[0].retrieval_score < cosine


async def test_the_candidates_are_embedded_in_one_call_behind_the_question_as_queries(ranked):
    await ranked.answers.Answer(ask(retrieval=common_pb2.RetrievalOptions(collection="wiki")))
    (request,) = ranked.retriever.embedded
    assert list(request.texts) == [f"{QUESTION} Lyon", f"{QUESTION} Paris"]
    assert (request.role, request.collection) == (retriever_pb2.TEXT_ROLE_QUERY, "wiki")


async def test_the_server_default_collection_is_named_so_that_its_own_encoder_is_used(ranked):
    await ranked.answers.Answer(ask())
    assert ranked.retriever.embedded[0].collection == "default"


@pytest.mark.parametrize("wanted", [True, False])
async def test_vectors_are_returned_only_where_the_caller_asked_for_them(ranked, wanted):
    answer = (await ranked.answers.Answer(ask(retrieval=common_pb2.RetrievalOptions(include_vectors=wanted)))).answer
    assert ranked.retriever.script.seen[0].request.options.include_vectors
    assert {cited.retrieved.HasField("vector") for cited in answer.citations} == {wanted}


async def test_the_threshold_looks_at_the_chosen_candidates_confidence(ranked):
    answer = (await ranked.answers.Answer(ask(min_confidence=0.7))).answer
    assert answer.finish_reason == common_pb2.FINISH_REASON_ABSTAINED
    assert (answer.text, len(answer.hypotheses)) == ("", 0)


async def test_a_single_candidate_is_the_answer_and_still_scored(ranked):
    del ranked.generator.candidates[0]
    answer = (await ranked.answers.Answer(ask())).answer
    assert answer.text == "Paris"
    assert answer.hypotheses[0].HasField("ranking_score")


async def test_ranking_is_timed_and_counted_by_whether_it_changed_the_answer(ranked):
    def value(name, **labels):
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def state():
        return [
            value("rag_gateway_candidate_rankings_total", changed="yes"),
            value("rag_gateway_candidate_rankings_total", changed="no"),
            value("rag_gateway_answer_stage_seconds_count", stage="rank"),
        ]

    before = state()
    reply = await ranked.answers.Answer(ask())
    await ranked.answers.Answer(ask(retrieval_weight=0.0))
    assert common_pb2.STAGE_RANK in {timing.stage for timing in reply.timings}
    assert [b - a for a, b in zip(before, state(), strict=True)] == [1, 1, 2]


async def test_a_stream_with_candidates_has_stages_and_one_final_message(ranked):
    events = [event async for event in ranked.answers.StreamAnswer(ask(gateway_pb2.StreamAnswerRequest))]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["stage", "passages", "stage", "stage", "final"]
    stages = [event.stage.timing.stage for event in events if event.HasField("stage")]
    assert stages == [common_pb2.STAGE_RETRIEVE, common_pb2.STAGE_GENERATE, common_pb2.STAGE_RANK]
    assert events[-1].final.answer.text == "Paris"
    assert not any(passage.HasField("vector") for passage in events[1].passages.passages)
    decoding = ranked.generator.script.seen[0].request.decoding
    assert (decoding.model, decoding.num_beams) == (common_pb2.DECODING_MODEL_RAG_TOKEN, 0)


async def test_nothing_retrieved_ranks_nothing(ranked):
    ranked.retriever.num_passages = 0
    answer = (await ranked.answers.Answer(ask())).answer
    assert answer.finish_reason == common_pb2.FINISH_REASON_NO_PASSAGES
    assert ranked.retriever.embedded == []


async def test_passages_of_another_encoder_are_not_compared(ranked):
    ranked.retriever.encoder_digest = "encoder-2"
    error = await refusal(ranked.answers.Answer(ask()))
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "ENCODER_DIFFERS"


PATH = "options.decoding.candidate_ranking"


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"num_candidates": 1}, f"{PATH}.num_candidates", "2 to 16"),
        ({"num_candidates": 17}, f"{PATH}.num_candidates", "2 to 16"),
        ({"generation_weight": -1.0}, f"{PATH}.generation_weight", "at least 0"),
        ({"retrieval_weight": float("inf")}, f"{PATH}.retrieval_weight", "finite"),
        ({"model": "DECODING_MODEL_CLOSED_BOOK"}, PATH, "needs passages"),
        (
            {"explanation": common_pb2.ExplanationOptions(token_posteriors=True)},
            "options.explanation.token_posteriors",
            "candidate_ranking",
        ),
        (
            {"explanation": common_pb2.ExplanationOptions(leave_one_out=True)},
            "options.explanation.leave_one_out",
            "candidate_ranking",
        ),
    ],
)
async def test_what_candidates_cannot_have_is_refused_naming_the_field(ranked, given, field, words):
    error = await refusal(ranked.answers.Answer(ask(**given)))
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert words in error.message
    assert ranked.retriever.script.seen == []
