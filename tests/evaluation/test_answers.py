"""Exact match and F1 agree with the official SQuAD script on cases worked out by hand."""

import pytest

from evaluation.answers import exact_match, f1, normalize_answer, rouge_l


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Walt Disney Company", "walt disney company"),
        ("  An   apple,  a day! ", "apple day"),
        ("U.S. $12", "us 12"),
        ("theatre", "theatre"),
        ("student-teacher", "studentteacher"),
        ("Disney–ABC", "disney–abc"),
        ("the", ""),
    ],
)
def test_normalisation_lowers_then_drops_punctuation_then_articles(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


def test_exact_match_ignores_case_articles_and_ascii_punctuation() -> None:
    assert exact_match("the 'Manhattan'.", ["Manhattan"]) == 1.0
    assert exact_match("Manhattan island", ["Manhattan"]) == 0.0


def test_exact_match_takes_the_best_of_several_gold_answers() -> None:
    assert exact_match("ABC", ["The Walt Disney Company", "abc"]) == 1.0


def test_f1_counts_shared_tokens_as_a_multiset() -> None:
    # 2 shared of 3 given and 2 wanted: precision 2/3, recall 1.
    assert f1("walt disney company", ["walt disney"]) == pytest.approx(0.8)
    # "new" is wanted once only: 1 shared of 2 given and 2 wanted.
    assert f1("new new", ["new york"]) == pytest.approx(0.5)


def test_f1_takes_the_best_gold_answer() -> None:
    assert f1("walt disney", ["abc", "walt disney"]) == 1.0


def test_f1_is_zero_without_overlap_or_gold_answers() -> None:
    assert f1("paris", ["london"]) == 0.0
    assert f1("paris", []) == 0.0
    assert exact_match("paris", []) == 0.0


def test_an_answer_of_articles_alone_scores_zero_f1_as_in_the_official_script() -> None:
    assert f1("the", ["the"]) == 0.0
    assert exact_match("the", ["a"]) == 1.0


@pytest.mark.parametrize(
    ("answer", "golds", "value"),
    [
        ("police kill the gunman", ["police killed the gunman"], 0.75),  # Lin 2004: 3 of 4 words in order.
        ("the gunman kill police", ["police killed the gunman"], 0.5),
        ("a b c d", ["a x c"], 4 / 7),  # "a c" of 4 and 3.
        ("Yes, it IS", ["yes it is"], 1.0),
        ("yes", ["no", "yes sir"], 2 / 3),
        ("", ["no"], 0.0),
        ("…", ["…"], 0.0),
        ("no", [], 0.0),
    ],
)
def test_rouge_l_is_the_longest_common_subsequence_against_the_best_gold_answer(
    answer: str, golds: list[str], value: float
) -> None:
    assert rouge_l(answer, golds) == pytest.approx(value)
