"""Sentences of a passage."""

import pytest

from serving.sentences import MAX_SENTENCES, split_sentences


def test_sentences_come_in_order_without_the_white_space_between_them():
    assert split_sentences("It is 3.5 m long. She left!  Why?\nNobody knows", "en") == [
        "It is 3.5 m long.", "She left!", "Why?", "Nobody knows",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", " ", "One sentence only.", "no full stop"])
def test_a_single_sentence_is_not_split(text):
    assert split_sentences(text, "en") == []


def test_neighbours_are_taken_together_where_there_are_too_many():
    numbered = [f"This is number {i}." for i in range(MAX_SENTENCES + 1)]
    found = split_sentences(" ".join(numbered), "en")
    assert len(found) == 9
    assert " ".join(found) == " ".join(numbered)
