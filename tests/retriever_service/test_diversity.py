from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever_service.collection import Passage
from retriever_service.diversity import by_marginal_relevance, content_key
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode


def brute_force(scores, vectors, relevance):
    """The definition, word for word."""
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    low, high = min(scores), max(scores)
    scaled = [(score - low) / (high - low) if high > low else 0.0 for score in scores]
    chosen = [int(np.argmax(scores))]
    while len(chosen) < len(scores):
        rest = [i for i in range(len(scores)) if i not in chosen]
        gains = [relevance * scaled[i] - (1 - relevance) * max(units[i] @ units[j] for j in chosen) for i in rest]
        chosen.append(rest[int(np.argmax(gains))])
    return chosen


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_the_order_is_that_of_the_definition(seed, num, relevance):
    rng = np.random.default_rng(seed)
    scores, vectors = rng.normal(size=num), rng.normal(size=(num, 4)).astype(np.float32)
    order = list(by_marginal_relevance(scores, vectors, relevance))
    assert order == brute_force(scores.tolist(), vectors.astype(np.float64), relevance)
    if relevance == 1.0:
        assert order == np.argsort(-scores).tolist()


def test_what_says_the_same_comes_last():
    scores = np.array([1.0, 0.99, 0.5, 0.0])
    vectors = np.array([[1, 0], [1, 0.01], [0, 1], [1, 1]], np.float32)
    assert list(islice(by_marginal_relevance(scores, vectors, 0.5), 2)) == [0, 2]


def test_no_candidates_are_no_order():
    assert list(by_marginal_relevance(np.empty(0), np.empty((0, 0), np.float32), 0.7)) == []


def test_contents_are_equal_but_for_case_and_white_space_in_title_and_text():
    assert content_key(Passage("a", "T", "One  two\n")) == content_key(Passage("b", "t ", "one two"))
    assert content_key(Passage("a", "T", "One")) != content_key(Passage("a", "U", "One"))
    assert content_key(Passage("a", "x y", "z")) != content_key(Passage("a", "x", "y z"))


FACTS = [
    Passage("a1", "", "paris capital france", "a.md"),
    Passage("a2", "", "Paris  capital france", "b.md"),
    Passage("a3", "", "paris capital france also", "c.md"),
    Passage("b", "", "paris metro", "d.md"),
]


@pytest.fixture
async def find(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)

        async def find_(text="paris capital", **options):
            return (await retriever.retrieve([QueryInput(text)], RetrievalOptions(**options))).results[0]

        yield find_


@pytest.mark.parametrize("mode", Mode)
async def test_content_under_two_sources_is_returned_once_and_the_next_moves_up(find, mode):
    hits = await find(top_k=3, mode=mode)
    found = [hit.passage.id for hit in hits]
    assert len(set(found) & {"a1", "a2"}) == 1
    assert {"a3", "b"} <= set(found)
    assert sum(np.exp(hit.log_prior) for hit in hits) == pytest.approx(1)


async def test_diversity_brings_what_is_new_and_the_prior_is_over_what_is_returned(find):
    assert "b" not in [hit.passage.id for hit in await find(top_k=2)]
    hits = await find(top_k=2, relevance=0.3)
    assert hits[1].passage.id == "b"
    logits = np.array([hit.score for hit in hits]) / 0.05
    assert [hit.log_prior for hit in hits] == pytest.approx((logits - np.logaddexp.reduce(logits)).tolist())
    assert hits[0].vector is None


async def test_full_relevance_is_the_order_by_score(find):
    assert await find(top_k=3, relevance=1.0) == await find(top_k=3)
