import math

import pytest

from protos.rag.v1 import common_pb2
from serving.errors import FailedPrecondition, InvalidRequest, NotFound
from tests.gateway.asking import answer, ask, hit, queries, read, refusal, taught

CLOSED_BOOK, FUSION = common_pb2.DECODING_MODEL_CLOSED_BOOK, common_pb2.DECODING_MODEL_FUSION_IN_DECODER
VERIFY = {"task": "fact_verification", "template": "verify: {question}"}


async def test_the_best_label_is_the_answer_with_normalised_probabilities_and_its_own_citations(house):
    house.generator.label_scores = {"yes": math.log(0.03), "no": math.log(0.01), "maybe": math.log(0.02)}
    got = await answer(house, ask("A claim.", "fact_verification", labels=["no", "maybe", "yes"]))
    assert (got.text, got.confidence) == ("yes", pytest.approx(0.5))
    assert [(each.label, round(each.probability, 6)) for each in got.labels] == [
        ("yes", 0.5), ("maybe", 0.333333), ("no", 0.166667)]  # fmt: skip
    assert got.log_probability == got.labels[0].log_probability == pytest.approx(math.log(0.03))
    assert [cited.retrieved.passage.id for cited in got.citations] == ["p1", "p2", "p0"]
    assert got.finish_reason == common_pb2.FINISH_REASON_END_OF_SEQUENCE
    assert house.generator.script.seen == []


async def test_the_checkpoints_words_and_labels_are_the_default_and_the_prior_goes_along(house):
    taught(house, **VERIFY, labels=["supported", "refuted"])
    house.generator.label_scores = {"supported": -1.0, "refuted": -2.0}
    got = await answer(house, ask("A {question} claim.", "fact_verification"))
    assert got.text == "supported"
    (scored,) = house.generator.scored
    assert scored.input.question == "verify: A {question} claim."
    assert [each.log_prior for each in scored.input.passages] == pytest.approx([math.log(p) for p in (0.5, 0.3, 0.2)])
    assert queries(house) == ["A {question} claim."]


async def test_without_labels_anywhere_it_is_refused_by_name(house):
    taught(house, **VERIFY)
    error = await refusal(house, ask("A claim.", "fact_verification"))
    assert isinstance(error, FailedPrecondition)
    assert (error.field, error.reason) == ("options.labels", "NO_LABELS")


async def test_a_threshold_above_the_best_label_abstains(house):
    house.generator.label_scores = {"yes": -1.0, "no": -1.0}
    got = await answer(house, ask("c", "fact_verification", labels=["yes", "no"], min_confidence=0.6))
    assert got.finish_reason == common_pb2.FINISH_REASON_ABSTAINED
    assert (got.text, len(got.labels), got.confidence) == ("", 0, pytest.approx(0.5))


async def test_a_claim_without_passages_has_no_answer(house):
    house.retriever.num_passages = 0
    got = await answer(house, ask("c", "fact_verification", labels=["yes", "no"]))
    assert got.finish_reason == common_pb2.FINISH_REASON_NO_PASSAGES
    assert house.generator.scored == []


async def test_a_refused_label_is_named_as_the_asker_knows_it(house):
    async def refuse():
        raise InvalidRequest("answers[1] has 600 tokens; the limit is 512", field="answers[1]", reason="TOO_LARGE")

    house.generator.script.hook = refuse
    error = await refusal(house, ask("c", "fact_verification", labels=["yes", "no"]))
    assert (error.field, error.reason) == ("options.labels[1]", "TOO_LARGE")


async def test_what_is_found_is_fused_into_a_longer_text_in_the_checkpoints_words(house):
    taught(house, task="summarization", template="summarize: {question}")
    got = await answer(house, ask("France", "summarization"))
    (request,) = [seen.request for seen in house.generator.script.seen]
    assert request.input.question == "summarize: France"
    assert (request.decoding.model, request.decoding.max_new_tokens) == (FUSION, 200)
    assert (got.text, len(got.citations)) == ("Paris", 3)


async def test_the_askers_own_options_go_before_the_tasks(house):
    decoding = common_pb2.DecodingOptions(model="DECODING_MODEL_RAG_TOKEN", max_new_tokens=9)
    await answer(house, ask("France", "summarization", decoding=decoding))
    assert house.generator.script.seen[0].request.decoding == decoding


async def test_a_source_is_read_whole_and_in_its_order(house):
    house.retriever.sources["a.md"] = [
        common_pb2.Passage(id=f"a#{i}", title="A", text=f"Part {i}", span=common_pb2.TextSpan(start_char=10 - i))
        for i in range(3)
    ]
    got = await answer(house, ask("", "summarization", summarization={"source": "a.md"}))
    (given,) = read(house)
    assert (given.question, [each.text for each in given.passages]) == ("A", ["Part 2", "Part 1", "Part 0"])
    assert [cited.prior for cited in got.citations] == pytest.approx([1 / 3] * 3)
    assert sorted(cited.retrieved.rank for cited in got.citations) == [1, 2, 3]
    assert house.retriever.script.seen == []


async def test_an_unknown_or_too_long_source_is_refused(house):
    error = await refusal(house, ask("q", "summarization", summarization={"source": "b.md"}))
    assert isinstance(error, NotFound)
    assert "'b.md'" in error.message
    house.retriever.sources["b.md"] = [common_pb2.Passage(id=f"b#{i:03}") for i in range(101)]
    error = await refusal(house, ask("q", "summarization", summarization={"source": "b.md"}))
    assert (error.field, error.reason) == ("options.summarization.source", "TOO_MANY")


async def test_what_has_a_translation_is_read_beside_it_and_the_rest_left_out(house):
    taught(house, task="translation", template="to German: {question}")
    house.retriever.found["Good day"] = [
        hit("a", 0.5), hit("b", 0.25, text="Good evening", title="T", translation="Guten Abend"),
        hit("c", 0.25, text="Bye", translation="Tschüss"),
    ]  # fmt: skip
    got = await answer(house, ask("Good day", "translation"))
    (given,) = read(house)
    assert given.question == "to German: Good day"
    assert [(each.title, each.text) for each in given.passages] == [
        ("", "Good evening => Guten Abend"), ("", "Bye => Tschüss")]  # fmt: skip
    assert [round(math.exp(each.log_prior), 6) for each in given.passages] == [0.5, 0.5]
    assert [(cited.retrieved.passage.id, cited.retrieved.rank) for cited in got.citations] == [("c", 2), ("b", 1)]
    assert got.citations[0].retrieved.passage.text == "Bye"


async def test_without_a_hit_it_is_translated_closed_book(house):
    house.retriever.found["Hello"] = [hit("a", 1.0, translation="")]
    explanation = common_pb2.ExplanationOptions(leave_one_out=True)
    got = await answer(house, ask("Hello", "translation", translation={"field": "de"}, explanation=explanation))
    request = house.generator.script.seen[0].request
    assert (request.decoding.model, len(request.input.passages)) == (CLOSED_BOOK, 0)
    assert not request.explanation.leave_one_out
    assert (got.text, len(got.citations)) == ("Paris", 0)
    assert got.finish_reason == common_pb2.FINISH_REASON_END_OF_SEQUENCE
