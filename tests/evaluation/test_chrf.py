"""chrF: how close a translation is."""

import pytest

from evaluation.translation import chrf


def test_an_equal_translation_scores_one_whatever_its_spaces():
    assert chrf("rumah besar itu", "rumah besar itu") == pytest.approx(1)
    assert chrf("rumah besaritu", "rumah besar itu") == pytest.approx(1)


def test_a_translation_without_a_shared_character_scores_zero():
    assert chrf("bbb", "aaa") == 0
    assert chrf("", "aaa") == 0


def test_precision_and_recall_are_averaged_over_the_orders_and_recall_weighs_double():
    # "ab" against "abc": order 1 has precision 1, recall 2/3; order 2 has 1 and 1/2; order 3 has 0 and 0.
    precision, recall = 2 / 3, (2 / 3 + 1 / 2) / 3
    assert chrf("ab", "abc") == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_missing_words_cost_more_than_extra_ones():
    assert chrf("anjing besar", "anjing") > chrf("anjing", "anjing besar")
