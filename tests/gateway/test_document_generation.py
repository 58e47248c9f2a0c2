import math
import re

import pytest

from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import Deadline
from tests.gateway.asking import answer, ask, hit, read, refusal, taught

FUSION = common_pb2.DECODING_MODEL_FUSION_IN_DECODER


@pytest.fixture
def library(house):
    taught(house, task="document_generation", template="write about {section} for {question}")
    house.retriever.found["France"] = [
        hit("a", 0.3, title="Cities", source="c.md"), hit("b", 0.45, source="rivers.md"),
        hit("c", 0.2, title="Cities"), hit("d", 0.05, title="Minor"),
    ]  # fmt: skip
    house.generator.texts = {
        "write about Cities for France": "Paris.", "write about rivers.md for France": "The Seine."}  # fmt: skip
    return house


def about_france(kind=gateway_pb2.AnswerRequest):
    return ask("France", "document_generation", kind=kind, document={"max_sections": 2})


async def test_sections_come_by_prior_mass_each_from_its_own_passages(library):
    got = await answer(library, about_france())
    assert [(each.heading, each.text) for each in got.sections] == [
        ("Cities", "Paris."), ("rivers.md", "The Seine.")]  # fmt: skip
    assert [round(each.prior, 4) for each in got.sections] == [0.5263, 0.4737]
    given = {each.question: each.passages for each in read(library)}
    cities = given["write about Cities for France"]
    assert [(each.id, round(math.exp(each.log_prior), 4)) for each in cities] == [("a", 0.6), ("c", 0.4)]
    assert library.generator.script.seen[0].request.decoding.model == FUSION
    assert library.retriever.script.seen[0].request.options.top_k == 20


async def test_the_text_is_markdown_with_the_numbers_of_the_answers_citations(library):
    got = await answer(library, about_france())
    ids = [cited.retrieved.passage.id for cited in got.citations]
    assert sorted(ids) == ["a", "b", "c"]
    assert sum(cited.posterior for cited in got.citations) == pytest.approx(0.5263 * 0.8 + 0.4737 * 0.1, abs=1e-4)
    marks = {name: f"[{ids.index(name) + 1}]" for name in ids}
    both = "".join(sorted((marks["a"], marks["c"])))
    assert f"## Cities\n\nParis. {both}\n\n## rivers.md\n\nThe Seine. {marks['b']}\n\n## Sources\n\n" in got.text
    assert f"- {marks['a']} Cities, c.md\n" in got.text
    places = got.sections[0].citations
    assert [(ids[place.index], place.posterior) for place in places] == [("c", 0.7), ("a", 0.1)]


async def test_the_answer_sums_its_sections_up(library):
    got = await answer(library, about_france())
    assert (got.log_probability, got.confidence) == (-1.0, pytest.approx(0.8))


async def test_a_stream_tells_the_end_of_each_section_by_its_heading(library):
    request = about_france(gateway_pb2.StreamAnswerRequest)
    events = [event async for event in library.answers.StreamAnswer(request)]
    assert {event.stage.section for event in events if event.HasField("stage")} == {"", "Cities", "rivers.md"}
    assert events[-1].final.answer.text.startswith("## Cities")


async def test_a_section_that_is_late_fails_the_document_and_says_how_much_was_written(library):
    async def be_late():
        if len(library.generator.script.seen) == 2:
            raise Deadline("the deadline cannot be met")

    library.generator.script.hook = be_late
    error = await refusal(library, about_france())
    assert isinstance(error, Deadline)
    assert re.match(
        r"[01] of 2 sections were written in time: generator at .*: the deadline cannot be met", error.message
    )


async def test_nothing_found_is_no_document(house):
    house.retriever.num_passages = 0
    got = await answer(house, about_france())
    assert got.finish_reason == common_pb2.FINISH_REASON_NO_PASSAGES
