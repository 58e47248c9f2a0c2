import io
import json

import pytest
from rich.console import Console

from evaluation import run
from evaluation.datasets import Gold, Question
from evaluation.run import EvaluationSettings, evaluate, judge
from rag_client import (
    Answer,
    FinishReason,
    Fusion,
    Passage,
    Provenance,
    Retrieval,
    RetrievalMode,
    RetrievedPassage,
    StageTiming,
    field,
)
from rag_client.errors import InvalidRequest, NotReady, Overloaded

ANSWERS = {"q1": "The Paris", "q2": "Rome", "q3": ""}


def answer_of(text):
    return Answer(
        answer_id="a",
        text=text,
        raw_text=text,
        finish_reason=FinishReason.END_OF_SEQUENCE if text else FinishReason.ABSTAINED,
        log_probability=-1.0,
        confidence=0.5,
        model=None,
        citations=(),
        provenance=Provenance(generator="g"),
        timings=(StageTiming("generate", 0.25),),
    )


def retrieval_of(*texts):
    passages = [
        RetrievedPassage(Passage(f"p{i}", text, source="capitals.md"), i + 1, 1.0, -1.0) for i, text in enumerate(texts)
    ]
    return Retrieval(tuple(passages), Provenance())


class FakeGateway:
    """Stands in for AsyncRagClient; fails once for each error that is set for a question."""

    def __init__(self):
        self.asked, self.depths, self.failures = [], [], {}

    def __call__(self, target, timeout):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def retrieve(self, text, *, top_k, **options):
        self.depths.append(top_k)
        return retrieval_of("Nothing here.", "Paris is a city.")

    async def answer(self, text, **options):
        self.asked.append((text, options))
        if self.failures.get(text):
            raise self.failures[text].pop()
        return answer_of(ANSWERS[text])


@pytest.fixture
def gateway(monkeypatch):
    fake = FakeGateway()
    monkeypatch.setattr(run, "AsyncRagClient", fake)
    return fake


@pytest.fixture
def settings(tmp_path):
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"id": "1", "question": "q1", "answers": ["Paris"], "passage_id": "p1"},
        {"id": "2", "question": "q2", "answers": ["Paris"], "passage_id": "p9"},
        {"id": "3", "question": "q3", "answers": []},
    ]
    questions.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return EvaluationSettings(questions, tmp_path / "results.jsonl", options={"collection": "c", "top_k": 3})


def quiet():
    return Console(file=io.StringIO())


def test_a_run_asks_every_question_and_reports(gateway, settings):
    report = evaluate(settings, quiet())
    assert report.metrics["exact_match"].value == 0.5
    assert report.metrics["recall@5"].value == 0.5
    assert report.metrics["recall@1"].value == 0.0
    assert report.counts["unanswerable_abstained"] == 1
    assert sorted(text for text, _ in gateway.asked) == ["q1", "q2", "q3"]
    assert gateway.asked[0][1] == {"collection": "c", "top_k": 3}
    assert set(gateway.depths) == {20}


def test_an_interrupted_run_goes_on_where_it_stopped(gateway, settings):
    gateway.failures["q3"] = [NotReady("retriever at x is not reachable")]
    with pytest.raises(NotReady, match="retriever at x"):
        evaluate(settings, quiet())
    done = len(settings.results.read_text(encoding="utf-8").splitlines()) - 1
    gateway.asked.clear()
    report = evaluate(settings, quiet())
    assert len(gateway.asked) == 3 - done
    assert report.counts["questions"] == 3


def test_an_overloaded_gateway_is_asked_again(gateway, settings):
    gateway.failures["q1"] = [Overloaded("queue is full", retry_after_seconds=0.001)] * 2
    report = evaluate(settings, quiet())
    assert report.counts["errors"] == 0
    assert [text for text, _ in gateway.asked].count("q1") == 3


def test_a_refused_question_is_an_error_among_the_results(gateway, settings):
    gateway.failures["q2"] = [InvalidRequest("too long", field="question")]
    report = evaluate(settings, quiet())
    assert report.counts["errors"] == 1
    assert report.metrics["exact_match"].value == 0.5


def test_options_of_every_type_identify_a_run(gateway, settings):
    options = {"filter": field("year") >= 2020, "fusion": Fusion("linear", 1.0), "mode": RetrievalMode.DENSE}
    filtered = EvaluationSettings(settings.questions, settings.results, options=options)
    assert evaluate(filtered, quiet()).settings["options"]["mode"] == "dense"
    other = EvaluationSettings(settings.questions, settings.results, options=options | {"filter": field("year") >= 1})
    with pytest.raises(ValueError, match="options"):
        evaluate(other, quiet())


def test_a_limit_takes_the_first_questions_alone(gateway, settings):
    limited = EvaluationSettings(settings.questions, settings.results, limit=1)
    assert evaluate(limited, quiet()).counts["questions"] == 1


def test_a_judgement_keeps_what_the_report_needs():
    question = Question("1", "q", ("Paris",), gold=Gold(frozenset({"p1"})), kind="verbatim")
    result = judge(question, answer_of("the Paris"), retrieval_of("x", "in Paris"), latency_seconds=0.5)
    assert (result.exact_match, result.f1) == (1.0, 1.0)
    assert (result.gold_flags, result.answer_flags) == ([False, True], [False, True])
    assert result.stage_seconds == {"generate": 0.25}
    assert result.provenance["generator"] == "g"


def test_regex_answers_are_judged_by_the_regex():
    question = Question("1", "q", answer_regex="19[45]5")
    result = judge(question, answer_of("in 1945"), retrieval_of("1955", "1965"), latency_seconds=0.1)
    assert (result.exact_match, result.answer_flags, result.gold_flags) == (1.0, [True, False], None)


def test_an_unanswerable_question_has_no_answer_strings_to_find():
    result = judge(Question("1", "q"), answer_of(""), retrieval_of("x"), latency_seconds=0.1)
    assert (result.is_answerable, result.is_answered, result.answer_flags) == (False, False, None)
