import pytest

from gateway.context import Part, join
from gateway.convert_generator import generate_request, rerank_request
from gateway.ranking import GeneratorRerank, RerankMethod
from gateway.stages import Question, Retrieval
from protos.rag.v1 import common_pb2, gateway_pb2, generator_pb2

TEXT = "One. Two and more. Three. Four at the end."


def part(start, end):
    return Part(f"s#{start}", TEXT[start:end], start, end)


def test_texts_stand_in_source_order_and_shared_characters_once():
    assert join([part(9, 25), part(0, 13), part(19, 42)]) == TEXT


def test_a_gap_between_two_passages_is_a_space():
    assert join([part(0, 4), part(19, 25)]) == "One. Three."
    assert join([part(0, 4), part(5, 18)]) == "One. Two and more."


def test_a_passage_within_another_adds_nothing():
    assert join([part(0, 25), part(5, 18), part(26, 42)]) == TEXT


def test_ranges_that_do_not_fit_the_texts_lose_no_text():
    assert join([Part("a", "wrong", 0, 10), Part("b", "ranges", 5, 12)]) == "wrong ranges"


def test_without_ranges_ids_order():
    assert join([Part("p2", "two"), Part("p1", "one"), Part("p3", "three")]) == "one two three"


@pytest.fixture
def retrieval():
    def passage(start, end):
        span = common_pb2.TextSpan(start_char=start, end_char=end)
        return common_pb2.Passage(id=f"s#{start}", title="T", text=TEXT[start:end], source="s", span=span)

    hit = common_pb2.RetrievedPassage(
        passage=passage(5, 18), neighbors=[passage(0, 4), passage(15, 25)], log_prior=-0.1
    )
    alone = common_pb2.RetrievedPassage(passage=passage(19, 25), log_prior=-2.0)
    return Retrieval([hit, alone], [-0.1, -2.0])


def test_the_generator_reads_a_passage_among_its_neighbors_under_its_own_id(retrieval):
    question = Question("q", gateway_pb2.AnswerOptions())
    request = generate_request(generator_pb2.GenerateRequest, question, retrieval)
    first, second = request.input.passages
    assert (first.id, first.title, first.text) == ("s#5", "T", "One. Two and more. Three.")
    assert second.text == "Three."


def test_reranking_by_likelihood_reads_the_passage_alone(retrieval):
    rerank = GeneratorRerank(RerankMethod.QUESTION_LIKELIHOOD, num_candidates=2, top_k=2)
    request = rerank_request(Question("q", gateway_pb2.AnswerOptions(), rerank=rerank), retrieval)
    assert [each.text for each in request.input.passages] == ["Two and more.", "Three."]


def test_reranking_by_answerability_reads_what_the_answer_will_be_made_from(retrieval):
    rerank = GeneratorRerank(RerankMethod.ANSWERABILITY, num_candidates=2, top_k=2)
    question = Question("q", gateway_pb2.AnswerOptions(), rerank=rerank)
    request = rerank_request(question, retrieval)
    for_answer = generate_request(generator_pb2.GenerateRequest, question, retrieval).input
    assert request.input.question == for_answer.question
    read, answered = ([(p.title, p.text) for p in each.passages] for each in (request.input, for_answer))
    assert read == answered == [("T", "One. Two and more. Three."), ("T", "Three.")]
    assert [each.log_prior for each in request.input.passages] == [0.0, 0.0]


def test_a_context_larger_than_a_generator_takes_is_the_passage_alone(retrieval):
    retrieval.passages[0].neighbors[1].text = "x" * 70_000
    request = generate_request(generator_pb2.GenerateRequest, Question("q", gateway_pb2.AnswerOptions()), retrieval)
    assert request.input.passages[0].text == "Two and more."
