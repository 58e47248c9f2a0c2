import json
import shutil

import numpy as np
import pytest

from retriever_service.lexical_index import LexicalIndex, check_language
from serving.errors import InvalidRequest

PASSAGES = [
    (1, "France", "Paris is the capital of France and its largest city."),
    (2, "Germany", "Berlin is the capital of Germany."),
    (3, "", "Cats were running through the garden AND the house."),
    (4, "", "The capital gains tax is a tax on profits."),
]


@pytest.fixture
def open_index(tmp_path):
    opened = []

    def open_(language="english", store_id="s", directory=tmp_path / "lexical"):
        for index in opened:
            index.close()
        opened[:] = [LexicalIndex(directory, language, store_id)]
        return opened[0]

    yield open_
    for index in opened:
        index.close()


@pytest.fixture
def index(open_index):
    index = open_index()
    index.add(PASSAGES)
    index.commit(4)
    return index


def test_ranks_by_shared_rare_words(index):
    rows, scores = index.search("What is the capital of Germany?", 4)
    assert rows[0] == 2
    assert (np.diff(scores) <= 0).all()


def test_title_words_count(index):
    index.add([(5, "Sweden", "Stockholm lies on islands.")])
    index.commit(5)
    assert index.search("sweden", 3)[0].tolist() == [5]


def test_words_are_stemmed_in_the_collections_language(index):
    assert index.search("cat runs", 1)[0].tolist() == [3]


@pytest.mark.parametrize("text", ['"capital', "capital AND (", "row:1 capital^9 -germany", "capital~2 [a TO b]", "*"])
def test_text_is_never_query_syntax(index, text):
    expected = index.search("".join(char if char.isalnum() else " " for char in text), 4)[0].tolist()
    assert index.search(text, 4)[0].tolist() == expected


def test_text_without_words_finds_nothing(index):
    assert index.search("?!", 4)[0].tolist() == []
    assert index.scores("?!", np.array([1, 2])).tolist() == [0, 0]


def test_scores_of_given_rows_equal_those_of_the_search_and_are_zero_without_a_match(index):
    rows, scores = index.search("capital of France", 4)
    asked = np.array([4, 3, 1, 2])
    given = dict(zip(asked.tolist(), index.scores("capital of France", asked).tolist(), strict=True))
    assert {row: given[row] for row in rows.tolist()} == pytest.approx(dict(zip(rows.tolist(), scores, strict=True)))
    assert given[3] == 0


def test_search_among_rows_finds_no_other(index):
    assert index.search("capital", 4, np.array([2, 3]))[0].tolist() == [2]


def test_removed_rows_are_gone_and_replayed_ones_are_not_doubled(index):
    index.remove([2])
    index.add(PASSAGES[:1])
    index.commit(6)
    assert sorted(index.search("capital", 9)[0].tolist()) == [1, 4]
    assert index.num_passages == 3


def test_reopened_it_holds_what_was_committed_and_knows_the_sequence(index, open_index):
    index.add([(7, "", "never committed elephants")])
    again = open_index()
    assert again.applied_sequence == 4
    assert again.search("germany", 1)[0].tolist() == [2]
    assert again.search("elephants", 1)[0].tolist() == []


@pytest.mark.parametrize("name", ["meta.json", "applied.json"])
def test_a_damaged_index_becomes_empty_and_asks_to_be_rebuilt(index, open_index, tmp_path, name):
    index.close()
    (tmp_path / "lexical" / name).write_text("")
    index.close = lambda: None
    again = open_index()
    assert again.applied_sequence is None
    assert again.num_passages == 0


def test_an_index_of_another_store_or_language_is_not_used(index, open_index):
    assert open_index(store_id="other").applied_sequence is None
    assert open_index(store_id="other", language="german").applied_sequence is None


def test_state_is_written_after_the_commit(index, tmp_path):
    state = json.loads((tmp_path / "lexical" / "applied.json").read_text())
    assert state["sequence"] == 4


def test_unknown_languages_are_refused_with_the_known_ones():
    assert check_language("German") == "german"
    assert check_language("") == "english"
    with pytest.raises(InvalidRequest, match=r"klingon.*english"):
        check_language("klingon")


def test_words_that_ask_find_nothing_unless_there_is_nothing_else(index):
    index.add([(6, "", "Who and what and which were names of three songs.")])
    index.commit(6)
    assert 6 not in index.search("Which capital does Germany have?", 5)[0].tolist()
    assert index.search("who what which", 5)[0].tolist() == [6]


def test_words_that_ask_count_in_a_collection_of_another_language(open_index):
    index = open_index("german")
    index.add([(6, "", "Die Band The Who stammt aus London.")])
    index.commit(6)
    assert index.search("who", 5)[0].tolist() == [6]


def test_a_list_of_deletions_that_no_commit_names_does_not_hinder_the_next_one(tmp_path):
    index = LexicalIndex(tmp_path / "index", "english", "store")
    index.add([(row, "", f"word{row}") for row in range(4)])
    index.commit(1)
    index.close()
    shutil.copytree(tmp_path / "index", tmp_path / "killed", ignore=shutil.ignore_patterns("*.lock"))
    index = LexicalIndex(tmp_path / "index", "english", "store")
    index.remove([3])
    index.commit(2)
    (deleted,) = (tmp_path / "index").glob("*.del")
    shutil.copy(deleted, tmp_path / "killed")  # As if killed between writing it and the commit.
    index.close()
    again = LexicalIndex(tmp_path / "killed", "english", "store")
    assert again.applied_sequence == 1
    again.remove([3])
    again.commit(2)
    assert again.num_passages == 3
    again.close()
