import pytest

from evaluation.datasets import Target
from evaluation.results import Result
from evaluation.scores import is_right, score


def of(target, golds=(), text="", **fields):
    return Result("1", "q", target, tuple(golds), text=text, is_answered=bool(text), **fields)


def test_answers_are_scored_by_what_the_question_is_known_by():
    assert score(of(Target.STRINGS, ["Paris"], "in Paris"), depth=5) == pytest.approx(
        {"exact_match": 0.0, "f1": 2 / 3, "rouge_l": 2 / 3}
    )
    assert score(of(Target.REGEX, ["19[45]5"], "in 1945"), depth=5) == {"exact_match": 1.0}
    assert score(of(Target.LABEL, ["SUPPORTS"], "supports."), depth=5) == {"accuracy": 1.0}
    assert score(of(Target.LABEL, ["SUPPORTS"], "refutes"), depth=5) == {"accuracy": 0.0}
    assert score(of(Target.NONE, text="something"), depth=5) == {}


def test_no_answer_scores_nothing_even_where_a_gold_answer_is_empty_after_normalisation():
    assert score(of(Target.STRINGS, ["The"]), depth=5)["exact_match"] == 0.0
    assert is_right(of(Target.REGEX, [".*"])) == 0.0


def test_of_an_unanswerable_question_silence_is_right_and_a_failed_call_is_not():
    assert is_right(of(Target.NONE)) == 1.0
    assert is_right(of(Target.NONE, text="x")) == 0.0
    assert is_right(of(Target.NONE, error="late")) == 0.0


def test_rankings_are_scored_up_to_their_depth():
    values = score(of(Target.NONE, gold_flags=[False, True, True], num_gold=2), depth=5)
    assert values == pytest.approx(
        {"recall@1": 0.0, "precision@1": 0.0, "recall@5": 1.0, "precision@5": 0.4, "mrr": 0.5, "ndcg@5": 0.6934},
        abs=1e-4,
    )


def test_by_answer_recall_is_any_passage_and_precision_their_share():
    values = score(of(Target.STRINGS, ["x"], answer_flags=[False, True, True]), depth=5)
    assert (values["answer_recall@1"], values["answer_recall@5"], values["answer_precision@5"]) == (0.0, 1.0, 0.4)
    assert values["answer_mrr"] == 0.5
