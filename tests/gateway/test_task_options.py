"""What is refused, what is kept, and what is told of the limits."""

import pytest

from gateway.convert import question
from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import InvalidRequest, Unimplemented
from tests.gateway.asking import answer, ask

USER = [("user", "hello")]
DECODING, RETRIEVAL = common_pb2.DecodingOptions, common_pb2.RetrievalOptions
LIKED = {"liked_sources": ["a"]}
LIKELIHOOD = common_pb2.Rerank(method="METHOD_QUESTION_LIKELIHOOD")
ANSWERABILITY = common_pb2.Rerank(method="METHOD_ANSWERABILITY")


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (ask("q", "question_answering", turns=USER), "history", "DIALOGUE and RECOMMENDATION"),
        (ask("q", "", labels=["a", "b"]), "options.labels", "FACT_VERIFICATION"),
        (ask("q", "", history={"num_turns": 2}), "options.history", "not for QUESTION_ANSWERING"),
        (ask("q", "", summarization={"source": "s"}), "options.summarization", "SUMMARIZATION"),
        (ask("q", "", document={"max_sections": 2}), "options.document", "DOCUMENT_GENERATION"),
        (ask("q", "", recommendation=LIKED), "options.recommendation", "RECOMMENDATION"),
        (ask("q", "dialogue", translation={"field": "de"}), "options.translation", "TRANSLATION"),
        (ask("q", "recommendation", history={"mode": "MODE_RAG_TURN"}), "options.history.mode", "DIALOGUE"),
        (ask("q", "dialogue", turns=[("user", " ")]), "history[0].text", "blank"),
        (ask("q", "dialogue", turns=[("user", "x" * 8193)]), "history[0].text", "at most 8192"),
        (ask("q", "dialogue", turns=USER * 65), "history", "0 to 64 turns"),
        (ask("q", "dialogue", history={"turn_discount": 0}), "options.history.turn_discount", "(0, 1]"),
        (ask("q", "dialogue", history={"num_turns": 65}), "options.history.num_turns", "0 to 64"),
        (ask("q", "fact_verification", labels=["a"]), "options.labels", "2 to 64"),
        (ask("q", "fact_verification", labels=["a", "a"]), "options.labels", "twice"),
        (ask("q", "fact_verification", labels=["a", " "]), "options.labels[1]", "blank"),
        (ask("q", "fact_verification", decoding=DECODING(num_beams=2)), "options.decoding.num_beams", "no meaning"),
        (ask("q", "fact_verification", explanation={"leave_one_out": True}), "options.explanation", "no meaning"),
        (ask("q", "document_generation", document={"max_sections": 21}), "options.document.max_sections", "0 to 20"),
        (ask("q", "document_generation", min_confidence=0.1), "options.min_confidence", "no meaning"),
        (
            ask("q", "document_generation", decoding=DECODING(model="DECODING_MODEL_CLOSED_BOOK")),
            "options.decoding.model",
            "needs passages",
        ),
        (
            ask("q", "translation", decoding=DECODING(candidate_ranking={"num_candidates": 2})),
            "options.decoding.candidate_ranking",
            "TRANSLATION",
        ),
        (ask("", "recommendation"), "question", "blank"),
        (ask("", "recommendation", turns=[("assistant", "a")]), "question", "blank"),
        (ask("", "summarization"), "question", "blank"),
        (ask("q", "recommendation", decoding=DECODING(num_beams=2)), "options.decoding", "no meaning"),
        (ask("q", "recommendation", retrieval=RETRIEVAL(rerank=LIKELIHOOD)), "options.retrieval.rerank", "no meaning"),
        (
            ask("q", "recommendation", retrieval=RETRIEVAL(rerank=ANSWERABILITY)),
            "options.retrieval.rerank",
            "no meaning",
        ),
        (
            ask("q", "recommendation", recommendation={"liked_sources": [str(i) for i in range(33)]}),
            "options.recommendation.liked_sources",
            "1 to 32",
        ),
        (
            ask("", "recommendation", recommendation=LIKED, retrieval=RETRIEVAL(index_generation=3)),
            "options.retrieval.index_generation",
            "liked_sources",
        ),
        (
            ask("", "summarization", summarization={"source": "s"}, retrieval=RETRIEVAL(top_k=3)),
            "options.retrieval.top_k",
            "all of its passages",
        ),
    ],
)
def test_what_a_task_does_not_take_is_refused_naming_the_field(request_, field, words):
    with pytest.raises(InvalidRequest) as caught:
        question(request_)
    assert caught.value.field == field
    assert words in caught.value.message


def test_a_task_newer_than_this_gateway_is_refused():
    with pytest.raises(Unimplemented, match="99"):
        question(gateway_pb2.AnswerRequest(question="q", task=99))


def test_empty_options_are_no_options():
    request = ask("q", "", history={}, summarization={}, document={}, recommendation={}, translation={})
    assert question(request).text == "q"


@pytest.mark.parametrize(
    "other",
    [
        ask("q", "dialogue"),
        ask("q", "dialogue", turns=USER),
        ask("q", "dialogue", turns=[("assistant", "hello")]),
        ask("q", "dialogue", turns=USER, history={"turn_discount": 0.25}),
        ask("q", "fact_verification", labels=["a", "b"]),
        ask("q", "fact_verification", labels=["b", "a"]),
        ask("q", "translation", translation={"field": "de"}),
    ],
)
def test_task_history_labels_and_options_tell_cached_answers_apart(other):
    known = [ask("q", ""), ask("q", "summarization")]
    keys = {question(each).cache_key for each in [*known, other]}
    assert len(keys) == 3


async def test_every_task_is_answered_from_the_cache_while_nothing_changes(caching_house):
    caching_house.generator.label_scores = {"a": -1.0, "b": -2.0}
    caching_house.retriever.sources["s"] = [common_pb2.Passage(id="s#1", source="s", text="liked")]
    for request in (
        ask("q", "dialogue", turns=USER),
        ask("q", "fact_verification", labels=["a", "b"]),
        ask("q", "document_generation"),
        ask("", "recommendation", recommendation={"liked_sources": ["s"]}),
        ask("", "summarization", summarization={"source": "s"}),
        ask("q", "translation"),
    ):
        first, second = await answer(caching_house, request), await answer(caching_house, request)
        assert (first.from_cache, second.from_cache) == (False, True)
        second.answer_id, second.from_cache = first.answer_id, False
        assert first == second
    caching_house.retriever.state = "state-2"
    assert not (await answer(caching_house, request)).from_cache


async def test_a_recommendation_is_cached_whatever_the_generator_and_verification_not(caching_house):
    caching_house.generator.label_scores = {"a": -1.0, "b": -2.0}
    requests = ask("q", "recommendation"), ask("q", "fact_verification", labels=["a", "b"])
    for request in requests:
        await answer(caching_house, request)
    caching_house.generator.digest = "generator-2"
    assert [(await answer(caching_house, request)).from_cache for request in requests] == [True, False]


@pytest.mark.parametrize(("task", "abstains"), [("dialogue", True), ("summarization", False), ("translation", False)])
async def test_the_gateways_own_threshold_is_about_answers_to_questions(tmp_path, open_house, task, abstains):
    async with open_house(tmp_path, min_confidence=0.9) as house:
        passage = common_pb2.Passage(id="t", metadata={"translation": common_pb2.Value(string_value="x")})
        house.retriever.found["q"] = [common_pb2.RetrievedPassage(passage=passage)]
        got = await answer(house, ask("q", task))
        assert (got.finish_reason == common_pb2.FINISH_REASON_ABSTAINED) == abstains


async def test_the_limits_of_tasks_are_told(house):
    info = await house.answers.GetInfo(gateway_pb2.GatewayServiceGetInfoRequest())
    told = {limit.name: limit.value for limit in info.service.limits}
    assert told.items() >= {"max_turns": 64, "max_labels": 64, "max_sections": 20, "max_liked_sources": 32}.items()
