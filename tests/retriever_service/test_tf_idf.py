import math
import re

import numpy as np
import pytest

from retriever_service.collection import CollectionRequest, EncoderIdentity, LexicalScoring, Passage
from retriever_service.filters import Equals
from retriever_service.lexical_index import LexicalIndex
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from retriever_service.selection import Selection
from retriever_service.stored_settings import settings_from_json, settings_to_json
from retriever_service.tf_idf import TfIdf

WORDS = [f"word{i}" for i in range(40)]


def make_texts(num=120, seed=0):
    """(row, title, text); the frequent words are frequent by far, as in a language."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, len(WORDS) + 1)
    for row in range(1, num + 1):
        size = int(rng.integers(3, 60))
        yield row, "Title" if row % 3 else "", " ".join(rng.choice(WORDS, size, p=shares / shares.sum()))


def brute_force(texts, query):
    """row -> score by Lucene's formula, from the words of every passage, written apart from the code under test."""
    split = {row: re.findall(r"\w+", f"{title} {text}".lower()) for row, title, text in texts}
    scores = {}
    for row, words in split.items():
        total = 0.0
        for word in query.split():
            holders = sum(word in others for others in split.values())
            idf = 1 + math.log((len(split) + 1) / (holders + 1))
            total += math.sqrt(words.count(word)) * idf * idf / math.sqrt(len(words))
        scores[row] = total
    return scores


@pytest.fixture
def texts():
    return {row: (row, title, text) for row, title, text in make_texts()}


@pytest.fixture
def index(tmp_path, texts):
    index = LexicalIndex(tmp_path / "lexical", "none", "s")
    index.add(texts.values())
    index.commit(1)
    yield index
    index.close()


@pytest.fixture
def stage(index, texts):
    return TfIdf(index, lambda rows: [texts[row] for row in rows if row in texts])


def check(stage, texts, query, count=10):
    expected = brute_force(texts.values(), query)
    rows, scores = stage.search(query, count)
    assert scores == pytest.approx(sorted((score for score in expected.values() if score > 0), reverse=True)[:count])
    assert scores == pytest.approx([expected[row] for row in rows.tolist()])
    asked = np.array(sorted(texts), np.int64)
    assert stage.scores(query, asked) == pytest.approx([expected[row] for row in asked.tolist()])


@pytest.mark.parametrize("query", ["word3", "word1 word1 word9", "word0 word17 word39 absent"])
def test_scores_and_order_are_those_of_the_formula_computed_by_hand(stage, texts, query):
    check(stage, texts, query)


def test_statistics_follow_deletes_and_updates_at_once(index, stage, texts):
    for row in list(texts)[::2]:
        index.remove([row])
        del texts[row]
    texts[500] = (500, "", "word3 word3 word39")
    index.add([texts[500]])
    index.commit(2)
    assert index.num_with("word39") == sum("word39" in text.split() for _, _, text in texts.values())
    for query in ("word3", "word39 word5", "word0"):
        check(stage, texts, query)


def test_search_stays_among_the_rows_given(stage, texts):
    few = np.array([5, 6, 7], np.int64)
    rows, scores = stage.search("word0 word1", 10, few)
    assert set(rows.tolist()) <= {5, 6, 7}
    assert scores == pytest.approx([brute_force(texts.values(), "word0 word1")[row] for row in rows.tolist()])


def test_a_row_that_the_store_has_no_more_scores_nothing(stage, texts):
    rows, _ = stage.search("word0", 5)
    del texts[int(rows[0])]
    assert stage.scores("word0", rows)[0] == 0


def test_words_that_ask_do_not_count(tmp_path):
    index = LexicalIndex(tmp_path / "english", "english", "s")
    index.add([(1, "", "what he did"), (2, "", "the capital of France")])
    index.commit(1)
    stage = TfIdf(index, lambda rows: [(1, "", "what he did"), (2, "", "the capital of France")])
    assert stage.scores("What is the capital?", np.array([1, 2]))[0] == 0
    index.close()


FACTS = [
    Passage("fr", "France", "paris is the capital of france"),
    Passage("de", "Germany", "berlin is the capital of germany"),
    Passage("ws", "Baseball", "the dodgers won the world series in 2020", "sport.md"),
]


async def test_a_collection_is_scored_as_it_was_made_also_after_deletes_and_a_restart(open_retriever, upsert):
    request = CollectionRequest("t", lexical_scoring=LexicalScoring.TF_IDF, language="none")
    facts = [(i, one.title.lower(), one.text) for i, one in enumerate(FACTS)]

    async def scores(retriever, mode=Mode.LEXICAL, **options):
        given = RetrievalOptions(collection="t", mode=mode, **options)
        found = await retriever.retrieve([QueryInput("capital world")], given)
        return {hit.passage.id: hit.lexical_score for hit in found.results[0]}

    async with open_retriever() as retriever:
        assert await retriever.library.create(request)
        await upsert(retriever, FACTS, "t")
        expected = brute_force(facts, "capital world")
        assert await scores(retriever) == pytest.approx({one.id: expected[i] for i, one in enumerate(FACTS)})
        assert await scores(retriever, filter=Equals("source", "sport.md")) == pytest.approx({"ws": expected[2]})
        # Passages that the lexical stage did not return have their score, too.
        unranked = await scores(retriever, Mode.HYBRID, top_k=3, num_candidates=1)
        assert unranked == pytest.approx(
            {one: score for one, score in (await scores(retriever)).items() if one in unranked}
        )
        await retriever.delete("t", Selection(ids=["de"]))
    async with open_retriever() as retriever:
        expected = brute_force([facts[0], facts[2]], "capital world")
        assert await scores(retriever) == pytest.approx({"fr": expected[0], "ws": expected[2]})
        assert not await retriever.library.create(request)


def test_settings_stored_before_there_was_a_choice_are_bm25():
    settings = CollectionRequest("c").settle(EncoderIdentity("e", "d", 8, True))
    older = settings_to_json(settings).replace(', "lexical_scoring": "bm25"', "")
    assert "lexical_scoring" not in older
    assert settings_from_json(older) == settings
