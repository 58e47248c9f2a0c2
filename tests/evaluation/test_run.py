import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from evaluation import run
from evaluation.datasets import Gold, Question
from evaluation.report import make_report
from evaluation.results import read_run
from evaluation.run import EvaluationSettings, to_result
from evaluation.scores import is_right
from rag_client import (
    Answer,
    Citation,
    Collection,
    CollectionSettings,
    FinishReason,
    Fusion,
    GatewayInfo,
    GeneratorInfo,
    ModelInfo,
    Passage,
    Provenance,
    Retrieval,
    RetrievalMode,
    RetrievedPassage,
    ServiceInfo,
    StageTiming,
    Turn,
    field,
)
from rag_client.errors import InvalidRequest, NotReady, Overloaded


def evaluate(settings, console):
    return make_report(run.evaluate(settings, console))


REWRITTEN = "q2 about Rome"
ANSWERS = {"q1": "The Paris", "q2": "Rome", "q3": ""}


def answer_of(text, *cited):
    return Answer(
        answer_id="a",
        text=text,
        raw_text=text,
        finish_reason=FinishReason.END_OF_SEQUENCE if text else FinishReason.ABSTAINED,
        log_probability=-1.0,
        confidence=0.5,
        model=None,
        citations=tuple(Citation(hit, prior=0.4, posterior=0.6) for hit in cited),
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
        self.asked, self.searched, self.depths, self.failures, self.generator = [], [], [], {}, "g"

    def __call__(self, target, timeout):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def info(self):
        service = ServiceInfo("x", "1", None, ())
        return GatewayInfo(service, None, GeneratorInfo(service, ModelInfo(self.generator), "", ()))

    async def describe_collection(self, name):
        return Collection(CollectionSettings(name), ModelInfo("e"), 2, 1, 7, 0, "", "", None, None, None)

    async def retrieve(self, text, *, top_k, **options):
        self.searched.append(text)
        self.depths.append(top_k)
        return retrieval_of("Nothing here.", "Paris is a city.")

    async def answer(self, text, **options):
        self.asked.append((text, options))
        if self.failures.get(text):
            raise self.failures[text].pop()
        return replace(answer_of(ANSWERS[text]), rewritten_question=REWRITTEN if "history" in options else "")


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


def test_a_question_is_asked_with_its_history_and_looked_for_as_it_was_rewritten(gateway, settings):
    row = {"id": "1", "question": "q2", "answers": ["Rome"], "history": [{"role": "user", "text": "q1"}]}
    settings.questions.write_text(json.dumps(row), encoding="utf-8")
    evaluate(settings, quiet())
    assert gateway.asked[0][1]["history"] == (Turn("user", "q1"),)
    assert gateway.searched == [REWRITTEN]
    assert read_run(settings.results).results[0].history == (Turn("user", "q1"),)
    row["history"][0]["text"] = "q3"
    settings.questions.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ValueError, match="another question '1'"):
        evaluate(settings, quiet())


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


def test_what_is_asked_again_after_the_system_or_the_questions_changed_is_refused(gateway, settings):
    evaluate(settings, quiet())
    gateway.generator = "other"
    with pytest.raises(ValueError, match=r"other settings \(system\)"):
        evaluate(settings, quiet())
    gateway.generator = "g"
    text = settings.questions.read_text(encoding="utf-8")
    settings.questions.write_text(text.replace("Paris", "London"), encoding="utf-8")
    with pytest.raises(ValueError, match="another question '1'"):
        evaluate(settings, quiet())


def test_the_file_holds_what_the_run_gives(gateway, settings):
    finished = run.evaluate(settings, quiet())
    kept = read_run(settings.results)
    assert sorted(kept.results, key=lambda result: result.id) == list(finished.results)
    assert kept.settings["system"]["num_passages"] == 2


def test_a_result_keeps_what_the_report_needs():
    question = Question("1", "q", ("Paris",), gold=Gold(frozenset({"p1"})), tags={"kind": "verbatim"})
    found = retrieval_of("x", "in Paris " + "y" * 1000)
    answer = answer_of("the Paris", found.passages[1])
    result = to_result(question, answer, found, latency_seconds=0.5)
    assert result.is_of(question)
    assert (result.gold_flags, result.answer_flags) == ([False, True], [False, True])
    assert result.stage_seconds == {"generate": 0.25}
    assert result.provenance["generator"] == "g"
    (cited,) = result.cited
    assert (cited.id, cited.posterior, cited.is_gold, cited.has_answer, len(cited.text)) == ("p1", 0.6, True, True, 500)


def test_passages_are_searched_by_the_regex_where_there_is_one():
    question = Question("1", "q", answer_regex="19[45]5")
    result = to_result(question, answer_of("in 1945"), retrieval_of("1955", "1965"), latency_seconds=0.1)
    assert (is_right(result), result.answer_flags, result.gold_flags) == (1.0, [True, False], None)


@pytest.mark.parametrize("question", [Question("1", "q"), Question("1", "q", label="REFUTES")])
def test_an_unanswerable_question_and_a_class_have_no_answer_strings_to_find(question):
    result = to_result(question, answer_of(""), retrieval_of("x"), latency_seconds=0.1)
    assert (result.is_answered, result.answer_flags) == (False, None)
