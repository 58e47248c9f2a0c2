import pytest

from evaluation.datasets import Question, Target
from evaluation.results import Cited, Result, ResultFile, read_run

SETTINGS = {"questions": "q.jsonl", "options": {"top_k": 5}}
ONE = Result(
    "1", "Wo?", Target.STRINGS, ("Zürich",), {"kind": "verbatim"}, text="Zürich", gold_flags=[True],
    cited=(Cited("p", "t", "s", "x", prior=0.5, posterior=0.75, is_gold=True, has_answer=False),),
    stage_seconds={"total": 0.5},
)  # fmt: skip
TWO = Result("2", "Why?", Target.NONE)


def test_results_are_there_after_an_interruption(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    with ResultFile(path, SETTINGS) as file:
        file.add(ONE)
    with ResultFile(path, SETTINGS) as file:
        assert file.results == {"1": ONE}
        file.add(TWO)
    run = read_run(path)
    assert run.settings == SETTINGS
    assert run.results == [ONE, TWO]


def test_a_line_cut_short_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "results.jsonl"
    with ResultFile(path, SETTINGS) as file:
        file.add(ONE)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "2", "ques')
    assert read_run(path).results == [ONE]
    with ResultFile(path, SETTINGS) as file:
        assert list(file.results) == ["1"]
        file.add(TWO)
    assert [result.id for result in read_run(path).results] == ["1", "2"]


def test_a_file_cut_short_in_its_first_line_begins_anew(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"settings": {"qu', encoding="utf-8")
    with pytest.raises(ValueError, match="no results"):
        read_run(path)
    with ResultFile(path, SETTINGS) as file:
        file.add(ONE)
    assert read_run(path).results == [ONE]


def test_results_of_other_settings_are_refused_naming_the_difference(tmp_path):
    path = tmp_path / "results.jsonl"
    ResultFile(path, SETTINGS).__exit__(None, None, None)
    with pytest.raises(ValueError, match="options"):
        ResultFile(path, SETTINGS | {"options": {"top_k": 3}})


@pytest.mark.parametrize("content", ["my notes\n", "my notes", '{"id": "1"}\n', '{"settings": {}}\n{"id": "1"}\n'])
def test_another_kind_of_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content, encoding="utf-8")
    for read in (read_run, lambda path: ResultFile(path, SETTINGS)):
        with pytest.raises(ValueError, match="no file of results"):
            read(path)
    assert path.read_text(encoding="utf-8") == content


def test_a_result_belongs_to_the_very_question_that_was_asked():
    question = Question("1", "Wo?", ("Zürich",))
    assert ONE.is_of(question)
    assert not ONE.is_of(Question("1", "Wo?", ("Bern",)))
    assert not ONE.is_of(Question("1", "Wann?", ("Zürich",)))
