"""A lossy tokenizer's answer comes back in the passage's own characters."""

from transformers import PreTrainedTokenizerFast

from generator_service.surface import restore_surface
from tests.training.tiny_tokenizer import tiny_tokenizer

WORDS = ("a", "student", "-", "teacher", "in", "paris", "caf", "##e", "1973", "oil", ":", "the", ".")


def _answer(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]


def test_the_passage_s_own_characters_replace_the_decoded_tokens() -> None:
    tokenizer = tiny_tokenizer(WORDS)
    surface = restore_surface(tokenizer, _answer(tokenizer, "student - teacher"), ["The Student-Teacher in Paris."])
    assert surface.raw == "student - teacher"
    assert surface.text == "Student-Teacher"
    assert (surface.passage, surface.start, surface.end) == (0, 4, 19)


def test_accents_come_back() -> None:
    tokenizer = tiny_tokenizer(WORDS)
    assert restore_surface(tokenizer, _answer(tokenizer, "cafe"), ["In the Café."]).text == "Café"


def test_special_tokens_in_the_answer_are_ignored() -> None:
    tokenizer = tiny_tokenizer(WORDS)
    ids = [*_answer(tokenizer, "paris"), int(tokenizer.sep_token_id), int(tokenizer.pad_token_id)]
    assert restore_surface(tokenizer, ids, ["PARIS"]).text == "PARIS"


def test_an_answer_no_passage_holds_stays_raw() -> None:
    tokenizer = tiny_tokenizer(WORDS)
    surface = restore_surface(tokenizer, _answer(tokenizer, "oil teacher"), ["Teacher oil", "Oil. Teacher."])
    assert surface.text == surface.raw == "oil teacher"
    assert surface.passage is None


def test_the_first_passage_and_its_first_occurrence_win() -> None:
    tokenizer = tiny_tokenizer(WORDS)
    surface = restore_surface(tokenizer, _answer(tokenizer, "oil"), ["Paris", "oIl Oil", "OIL"])
    assert (surface.text, surface.passage, surface.start) == ("oIl", 1, 0)


def test_an_empty_answer_is_an_empty_text() -> None:
    tokenizer = tiny_tokenizer(WORDS)
    assert restore_surface(tokenizer, [int(tokenizer.sep_token_id)], ["Paris"]).text == ""
