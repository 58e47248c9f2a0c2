import pytest

from evaluation.results import Result, ResultFile, read_results

SETTINGS = {"questions": "q.jsonl", "options": {"top_k": 5}}
ONE = Result("1", "verbatim", True, text="Zürich", gold_flags=[True], stage_seconds={"total": 0.5})


def test_results_are_there_after_an_interruption(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    with ResultFile(path, SETTINGS) as file:
        file.add(ONE)
    with ResultFile(path, SETTINGS) as file:
        assert file.results == {"1": ONE}
        file.add(Result("2", "", False))
    settings, results = read_results(path)
    assert settings == SETTINGS
    assert [result.id for result in results] == ["1", "2"]


def test_a_line_cut_short_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "results.jsonl"
    with ResultFile(path, SETTINGS) as file:
        file.add(ONE)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "2", "ki')
    with ResultFile(path, SETTINGS) as file:
        assert list(file.results) == ["1"]
        file.add(Result("2", "", False))
    assert [result.id for result in read_results(path)[1]] == ["1", "2"]


def test_results_of_other_settings_are_refused_naming_the_difference(tmp_path):
    path = tmp_path / "results.jsonl"
    ResultFile(path, SETTINGS).__exit__(None, None, None)
    with pytest.raises(ValueError, match="options"):
        ResultFile(path, SETTINGS | {"options": {"top_k": 3}})


def test_another_kind_of_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no file of results"):
        ResultFile(path, SETTINGS)
    assert path.read_text(encoding="utf-8") == "my notes\n"
