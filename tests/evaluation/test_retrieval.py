import math

import pytest

from evaluation.retrieval import (
    has_answer,
    hit_at,
    matches_regex,
    ndcg_at,
    precision_at,
    recall_at,
    reciprocal_rank,
)

FLAGS = [False, True, False, True, False]


def test_recall_counts_found_gold_passages_against_all_there_are():
    assert recall_at(FLAGS, 1, 3) == 0.0
    assert recall_at(FLAGS, 2, 3) == pytest.approx(1 / 3)
    assert recall_at(FLAGS, 5, 3) == pytest.approx(2 / 3)
    assert recall_at([], 5, 1) == 0.0
    assert recall_at(FLAGS, 5, 0) == 0.0


def test_precision_counts_missing_places_as_irrelevant():
    assert precision_at(FLAGS, 4) == 0.5
    assert precision_at([True], 5) == 0.2


def test_reciprocal_rank_is_of_the_first_gold_passage():
    assert reciprocal_rank(FLAGS) == 0.5
    assert reciprocal_rank([True, True]) == 1.0
    assert reciprocal_rank([False, False]) == 0.0


def test_ndcg_by_hand():
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at(FLAGS, 10, 3) == pytest.approx(gain / ideal)
    assert ndcg_at([True, True, False], 3, 2) == 1.0
    assert ndcg_at([False], 10, 1) == 0.0
    assert ndcg_at([True], 10, 0) == 0.0


def test_a_hit_is_any_flag_among_the_first_k():
    assert hit_at(FLAGS, 1) == 0.0
    assert hit_at(FLAGS, 2) == 1.0


@pytest.mark.parametrize(
    ("text", "answers", "found"),
    [
        ("Paris is the capital of France.", ["paris"], True),
        ("Parisian cafés", ["Paris"], False),  # Whole tokens only.
        ("The U.S. won.", ["U.S."], True),  # Punctuation marks are tokens of their own.
        ("The US won.", ["U.S."], False),
        ("Los Angeles Dodgers", ["Angeles Dodgers"], True),
        ("Los Angeles, Dodgers", ["Angeles Dodgers"], False),  # Not contiguous.
        ("In Zu\u0308rich", ["Z\u00fcrich"], True),  # NFD makes both forms one.
        ("S\u00f8rensen", ["Sorensen"], False),  # NFD does not take the stroke off an o.
        ("about 1,000 people", ["1,000"], True),
        ("no match", ["x", "match"], True),
        ("anything", [], False),
        ("anything", [""], False),
    ],
)
def test_answers_are_matched_as_dpr_does(text, answers, found):
    assert has_answer(text, answers) is found


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("born in 1879 in Ulm", r"187\d", True),
        ("BORN IN ULM", "ulm|vienna", True),
        ("born in Ulm", "vienna", False),
        ("anything", "(", False),
    ],
)
def test_regex_answers_are_searched_without_case(text, pattern, found):
    assert matches_regex(text, pattern) is found
