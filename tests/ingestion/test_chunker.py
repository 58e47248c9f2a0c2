from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.chunker import MAX_CHUNK_CHARS, ChunkOptions, chunk_text

PROSE = "Dr. Smith lives in the U.S. with 2.5 cats. He is tall! Is he? Yes.\n\nA new paragraph starts here"
PIECES = [
    "one",
    "two.",
    "three!",
    "Mr.",
    "U.S.",
    "3.5",
    "\n",
    "\n\n",
    "东京是首都。",
    "???",
    "naïve",
    "é\u0301",
    "\u2028",
    "\x85",
]
texts = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(PIECES)).map(" ".join),
)


def cut(text: str, words: int = 100, overlap: int = 0) -> list[str]:
    return [text[chunk.start : chunk.end] for chunk in chunk_text(text, ChunkOptions(words, overlap))]


@given(texts, st.integers(1, 8))
def test_without_overlap_every_word_is_kept_once_and_in_order(text: str, words: int) -> None:
    chunks = cut(text, words)
    assert "".join("".join(chunks).split()) == "".join(text.split())


@given(texts, st.integers(1, 8), st.integers(0, 7))
def test_chunks_start_and_end_with_a_word_and_advance(text: str, words: int, overlap: int) -> None:
    chunks = chunk_text(text, ChunkOptions(words, min(overlap, words - 1)))
    for chunk in chunks:
        assert 0 <= chunk.start < chunk.end <= len(text)
        assert text[chunk.start : chunk.end].strip() == text[chunk.start : chunk.end]
    assert all(one.start < two.start and one.end < two.end for one, two in pairwise(chunks))


@given(texts, st.integers(1, 8), st.integers(0, 7))
def test_no_chunk_has_more_words_than_the_limit_and_none_is_lost(text: str, words: int, overlap: int) -> None:
    chunks = chunk_text(text, ChunkOptions(words, min(overlap, words - 1)))
    assert all(len(text[chunk.start : chunk.end].split()) <= words for chunk in chunks)
    covered = {index for chunk in chunks for index in range(chunk.start, chunk.end)}
    assert all(index in covered for index, char in enumerate(text) if not char.isspace())


@given(st.lists(st.sampled_from(["alpha", "beta", "gamma.", "delta!"]), min_size=1, max_size=60), st.integers(1, 9))
def test_words_are_never_cut(words_of_text: list[str], words: int) -> None:
    assert [word for chunk in cut(" ".join(words_of_text), words) for word in chunk.split()] == words_of_text


def test_whole_sentences_are_packed_up_to_the_limit() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten."
    assert cut(text, words=7) == ["One two three. Four five six.", "Seven eight nine. Ten."]


def test_abbreviations_and_numbers_do_not_end_a_sentence() -> None:
    assert cut(PROSE, words=9) == [
        "Dr. Smith lives in the U.S. with 2.5 cats.",
        "He is tall! Is he? Yes.",
        "A new paragraph starts here",
    ]


def test_a_line_break_ends_a_sentence() -> None:
    assert cut("tokyo japan\nparis france\nrome italy", words=4) == ["tokyo japan\nparis france", "rome italy"]


def test_a_sentence_longer_than_the_limit_is_cut_between_words() -> None:
    text = "Short one. " + " ".join(f"w{number}" for number in range(10)) + "."
    assert cut(text, words=4) == ["Short one.", "w0 w1 w2 w3", "w4 w5 w6 w7", "w8 w9."]


def test_overlap_repeats_whole_sentences_where_they_fit() -> None:
    text = "One two three four. Five six. Seven eight nine. Ten eleven twelve."
    assert cut(text, words=6, overlap=3) == [
        "One two three four. Five six.",
        "Five six. Seven eight nine.",
        "Seven eight nine. Ten eleven twelve.",
    ]


def test_overlap_in_an_over_long_sentence_repeats_words() -> None:
    assert cut("a b c d e f g h", words=4, overlap=2) == ["a b c d", "c d e f", "e f g h"]


def test_overlap_is_given_up_rather_than_a_sentence_that_fits_without_it() -> None:
    text = "The first of all. One two three four five six."
    assert cut(text, words=6, overlap=3) == ["The first of all.", "One two three four five six."]


def test_text_without_spaces_between_words_is_cut_at_sentences_too() -> None:
    assert cut("东京是首都。大阪很大。", words=6) == ["东京是首都。", "大阪很大。"]


def test_a_chunk_never_exceeds_the_character_limit_even_for_one_endless_word() -> None:
    text = "x" * (MAX_CHUNK_CHARS + 5) + " " + "é" * 9000 + " " + "é" * 9000
    chunks = cut(text)
    assert max(map(len, chunks)) == MAX_CHUNK_CHARS
    assert max(len(chunk.encode()) for chunk in chunks) <= 65_536


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_blank_text_gives_no_chunks(text: str) -> None:
    assert cut(text) == []


def test_white_space_on_which_the_sentence_library_panics_is_harmless() -> None:
    assert cut("\x85A. b\u2028. c \x85J. \xa0") == ["A. b\u2028. c \x85J."]


@pytest.mark.parametrize(("words", "overlap"), [(0, 0), (-1, 0), (10, 10), (10, -1)])
def test_impossible_options_are_refused(words: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        ChunkOptions(words, overlap)
