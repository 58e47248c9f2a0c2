import math

import pytest

from gateway.prompts import Checkpoint, Turn, dialogue_text, recent
from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import FailedPrecondition
from tests.gateway.asking import answer, ask, hit, queries, read, refusal, taught

TURNS = [("user", "Where is Paris?"), ("assistant", "In France."), ("user", "And Rome?"), ("assistant", "In Italy.")]
REWRITE = {"task": "query_rewriting", "template": "rewrite: {history} ||| {question}"}
RAG_TURN, REWRITING = ({"mode": f"MODE_{name}"} for name in ("RAG_TURN", "QUERY_REWRITING"))


def priors(house):
    return {each.id: round(math.exp(each.log_prior), 6) for each in read(house)[-1].passages}


@pytest.fixture
def rome(house):
    house.retriever.found = {
        "How old is it?": [hit("a", 0.8), hit("b", 0.2)],
        "And Rome?": [hit("b", 0.5), hit("c", 0.5)],
        "Where is Paris?": [hit("d", 1.0)],
    }
    return house


async def test_passages_of_the_users_turns_are_read_under_the_discounted_mixture_equal_ones_once(rome):
    options = {"turn_discount": 0.5, "num_turns": 1}
    got = await answer(rome, ask("How old is it?", "dialogue", turns=TURNS, history=options))
    assert queries(rome) == ["How old is it?", "And Rome?"]
    # omega = (2/3, 1/3)
    assert priors(rome) == {"a": 0.533333, "b": 0.3, "c": 0.166667}
    assert [each.id for each in read(rome)[0].passages] == ["a", "b", "c"]
    assert read(rome)[0].question == "How old is it?"
    ranks = {cited.retrieved.passage.id: cited.retrieved.rank for cited in got.citations}
    assert ranks == {"a": 1, "b": 2, "c": 3}
    assert {round(cited.prior, 6) for cited in got.citations} == {0.533333, 0.3, 0.166667}


async def test_the_most_probable_top_k_of_the_mixture_are_read_and_normalised(rome):
    retrieval = common_pb2.RetrievalOptions(top_k=2)
    await answer(rome, ask("How old is it?", "dialogue", turns=TURNS, retrieval=retrieval, history={"num_turns": 1}))
    assert priors(rome) == {"a": 0.64, "b": 0.36}


async def test_a_history_without_a_task_is_a_dialogue_of_the_last_three_turns(rome):
    turns = [("user", "Hello?"), *TURNS[:3], ("user", "Or so.")]
    await answer(rome, ask("How old is it?", "", turns=turns))
    assert queries(rome) == ["How old is it?", "Or so.", "And Rome?", "Where is Paris?"]


async def test_a_turn_that_finds_nothing_leaves_its_weight_to_the_others(rome):
    rome.retriever.found["How old is it?"] = []
    await answer(rome, ask("How old is it?", "dialogue", turns=TURNS, history={"num_turns": 1}))
    assert priors(rome) == {"b": 0.5, "c": 0.5}


async def test_the_first_question_of_a_dialogue_is_answered_as_it_is(house):
    assert (await answer(house, ask("Where is Paris?", "dialogue"))).text == "Paris"
    assert queries(house) == ["Where is Paris?"]


async def test_the_dialogue_stands_where_the_checkpoint_was_taught_to_read_it(rome):
    taught(rome, task="dialogue", template="{history} user: {question}")
    await answer(rome, ask("How old is it?", "dialogue", turns=TURNS, history={"num_turns": 1}))
    assert read(rome)[0].question == "user: And Rome? assistant: In Italy. user: How old is it?"


@pytest.mark.parametrize("history", [None, REWRITING])
async def test_a_rewritten_question_is_found_for_answered_and_told(rome, history):
    taught(rome, **REWRITE)
    prompt = "rewrite: user: And Rome? assistant: In Italy. ||| How old is it?"
    rome.generator.texts[prompt] = " How old is Rome? "
    options = gateway_pb2.HistoryOptions(**(history or {}), num_turns=1)
    got = await answer(rome, ask("How old is it?", "dialogue", turns=TURNS, history=options))
    assert got.rewritten_question == "How old is Rome?"
    assert queries(rome) == ["How old is Rome?"]
    first, second = [seen.request for seen in rome.generator.script.seen]
    assert (first.input.question, len(first.input.passages)) == (prompt, 0)
    assert first.decoding.model == common_pb2.DECODING_MODEL_CLOSED_BOOK
    assert second.input.question == "How old is Rome?"


async def test_rag_turn_is_had_of_a_checkpoint_that_rewrites_where_asked_for(rome):
    taught(rome, **REWRITE)
    got = await answer(rome, ask("How old is it?", "dialogue", turns=TURNS, history=RAG_TURN))
    assert (got.rewritten_question, queries(rome)[1]) == ("", "And Rome?")


async def test_a_rewriting_without_words_leaves_the_question_as_it_is(rome):
    taught(rome, **REWRITE)
    rome.generator.texts["rewrite: user: And Rome? ||| How old is it?"] = " "
    got = await answer(rome, ask("How old is it?", "dialogue", turns=[("user", "And Rome?")]))
    assert got.rewritten_question == queries(rome)[0] == "How old is it?"


async def test_rewriting_of_a_checkpoint_that_was_not_taught_it_is_refused_by_name(house):
    error = await refusal(house, ask("q", "dialogue", turns=TURNS, history=REWRITING))
    assert isinstance(error, FailedPrecondition)
    assert (error.field, error.reason) == ("options.history.mode", "NO_TEMPLATE")
    assert "query_rewriting" in error.message


async def test_a_streamed_dialogue_tells_its_stages_and_its_tokens(rome):
    taught(rome, **REWRITE)
    request = ask("How old is it?", "dialogue", turns=TURNS, kind=gateway_pb2.StreamAnswerRequest)
    events = [event async for event in rome.answers.StreamAnswer(request)]
    stages = [common_pb2.Stage.Name(each.stage.timing.stage) for each in events if each.HasField("stage")]
    assert stages == ["STAGE_REWRITE", "STAGE_RETRIEVE", "STAGE_GENERATE"]
    assert "".join(event.delta.text for event in events) == "Paris"
    assert events[-1].final.answer.rewritten_question == "Paris"


def test_recent_turns_start_with_a_question_of_the_user():
    history = [Turn("user", "1"), Turn("assistant", "2"), Turn("user", "3"), Turn("assistant", "4")]
    assert [turn.text for turn in recent(history, 1)] == ["3", "4"]
    assert [turn.text for turn in recent(history, 9)] == ["1", "2", "3", "4"]
    assert list(recent(history, 0)) == list(recent([], 3)) == []


def test_the_oldest_turns_are_left_out_where_a_dialogue_does_not_fit():
    history = [Turn("user", "a" * 50), Turn("assistant", "b"), Turn("user", "c")]
    assert dialogue_text(history, Checkpoint(), max_bytes=40) == "assistant: b user: c"
    assert dialogue_text(history, Checkpoint(max_input_tokens=10), max_bytes=1000) == "user: c"
    assert dialogue_text(history, Checkpoint(), max_bytes=-5) == ""
