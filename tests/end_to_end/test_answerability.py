"""Reranking by answerability through the three services with the default models."""

from __future__ import annotations

import urllib.request

import pytest

from rag_client import Passage, Rerank

COLLECTION = "answerability"
QUESTION = "Who painted the portrait in the town hall of Quarvale?"
PASSAGES = [
    Passage("none", "The portrait in the town hall of Quarvale was painted long ago and is much admired.", "Hall"),
    Passage("answer", "Of the portrait in the town hall we know that Mira Tollen painted it.", "Quarvale"),
    Passage("far", "A tennis match is won by the best of three or five sets.", "Tennis"),
]


@pytest.fixture(scope="module")
def client(rag_system):
    with rag_system.client() as opened:
        opened.create_collection(COLLECTION)
        opened.upsert(PASSAGES, collection=COLLECTION)
        yield opened


def num_encoded_rows(rag_system) -> float:
    with urllib.request.urlopen(f"http://{rag_system.generator.metrics_address}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("rag_generator_encoder_rows_total"))


def test_the_passage_that_holds_the_answer_comes_first_and_is_not_read_twice(rag_system, client):
    plain = client.retrieve(QUESTION, collection=COLLECTION).passages
    assert [hit.passage.id for hit in plain] == ["none", "answer", "far"]
    before = num_encoded_rows(rag_system)
    found = client.retrieve(QUESTION, collection=COLLECTION, rerank=Rerank("answerability")).passages
    assert num_encoded_rows(rag_system) == before + len(PASSAGES)
    assert [hit.passage.id for hit in found] == ["answer", "none", "far"]
    scores = {hit.passage.id: hit.score for hit in plain}
    for hit in found:
        assert hit.score == pytest.approx(scores[hit.passage.id] + 0.085 * hit.rerank_score, abs=1e-5)
    answer = client.answer(QUESTION, collection=COLLECTION, rerank=Rerank("answerability"), top_k=2, min_confidence=0)
    assert (answer.text, answer.citations[0].passage.id) == ("Mira Tollen", "answer")
    assert num_encoded_rows(rag_system) == before + len(PASSAGES)
