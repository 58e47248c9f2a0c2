"""Summaries that only copy sentences."""

from evaluation.extractive import best_sentence, lead, most_like

TOLD = ["The river rose for two days.", "Farmers moved the cattle to the hill.", "No one was hurt."]


def test_the_lead_is_the_first_sentences():
    assert lead(TOLD, 1) == TOLD[0]
    assert lead(TOLD, 2) == f"{TOLD[0]} {TOLD[1]}"
    assert lead(TOLD, 9) == " ".join(TOLD)


def test_the_sentence_most_like_the_question_shares_most_words_with_it():
    assert most_like(TOLD, "Where did farmers take their cattle?") == TOLD[1]
    assert most_like([], "Where?") == ""


def test_the_best_sentence_is_the_one_nearest_to_any_known_summary():
    assert best_sentence(TOLD, ["Prices fell.", "Nobody was hurt."]) == TOLD[2]
    assert best_sentence([], ["Nobody was hurt."]) == ""
