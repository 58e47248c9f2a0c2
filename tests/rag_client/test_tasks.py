"""Tasks, to the wire and back."""

import pytest

from protos.rag.v1 import gateway_pb2
from rag_client import RagClient, StageEnded, Task, Turn
from rag_client.convert import answer, event
from rag_client.errors import InvalidRequest
from rag_client.wire_answers import answer_fields
from tests.rag_client.conftest import retrieved


def test_every_task_option_reaches_its_place_in_the_request():
    fields = answer_fields(
        "q",
        {
            "task": Task.DIALOGUE,
            "history": [Turn("user", "a"), Turn("assistant", "b")],
            "dialogue_mode": "rag_turn",
            "turn_discount": 0.25,
            "num_turns": 0,
            "labels": ["yes", "no"],
            "source": "s.md",
            "max_sections": 3,
            "liked_sources": ["l"],
            "item_field": "film",
            "translation_field": "de",
        },
    )
    request = gateway_pb2.AnswerRequest(**fields)
    options = request.options
    assert request.task == gateway_pb2.TASK_DIALOGUE
    assert [(turn.role, turn.text) for turn in request.history] == [(1, "a"), (2, "b")]
    assert options.history.mode == gateway_pb2.HistoryOptions.MODE_RAG_TURN
    assert (options.history.turn_discount, options.history.HasField("num_turns")) == (0.25, True)
    assert (list(options.labels), options.summarization.source) == (["yes", "no"], "s.md")
    assert options.document.max_sections == 3
    assert (list(options.recommendation.liked_sources), options.recommendation.item_field) == (["l"], "film")
    assert options.translation.field == "de"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"task": "juggling"}, "task"),
        ({"history": [Turn("robot", "a")]}, "history.role"),
        ({"dialogue_mode": "guess"}, "dialogue_mode"),
        ({"max_sections": -1}, "max_sections"),
    ],
)
def test_a_value_that_the_wire_cannot_carry_is_refused_naming_the_field(given, field):
    with pytest.raises(InvalidRequest) as caught:
        answer_fields("q", given)
    assert caught.value.field == field


def test_index_generations_are_compared_on_questions_alone(server):
    with RagClient(server.address) as client, pytest.raises(TypeError, match="task"):
        client.compare("q", [1, 2], task="dialogue")


def test_what_a_task_made_comes_back_with_its_own_citations():
    def places(*given):
        return [{"index": index, "posterior": posterior} for index, posterior in given]

    got = answer(
        gateway_pb2.AnswerResponse(
            answer={
                "citations": [
                    {"retrieved": retrieved("p1", 1), "posterior": 0.6},
                    {"retrieved": retrieved("p2", 2), "posterior": 0.4},
                ],
                "rewritten_question": "rewritten",
                "labels": [{"label": "yes", "probability": 0.75, "log_probability": -1.0}],
                "sections": [{"heading": "H", "text": "T", "prior": 1.0, "citations": places((1, 0.9), (0, 0.1))}],
                "items": [{"name": "film", "probability": 0.5, "citations": places((1, 1.0))}],
            }
        )
    )
    assert (got.rewritten_question, got.labels[0].label, got.labels[0].probability) == ("rewritten", "yes", 0.75)
    (section,), (item,) = got.sections, got.items
    assert (section.heading, section.text) == ("H", "T")
    assert [(cited.passage.id, cited.posterior) for cited in section.citations] == [("p2", 0.9), ("p1", 0.1)]
    assert (item.name, item.citations[0].passage.id, item.citations[0].posterior) == ("film", "p2", 1.0)


def test_the_end_of_a_section_is_told_by_its_heading():
    told = event(gateway_pb2.StreamAnswerResponse(stage={"timing": {"stage": "STAGE_GENERATE"}, "section": "H"}))
    assert isinstance(told, StageEnded)
    assert (told.timing.stage, told.section) == ("generate", "H")
