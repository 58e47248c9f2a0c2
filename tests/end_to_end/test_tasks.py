"""Tasks through the three services with the default models."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from protos.rag.v1 import generator_pb2, generator_pb2_grpc
from rag_client import FinishReason, Passage, Turn, errors

COLLECTION = "tasks"
PASSAGES = [
    Passage("france", "Paris is the capital of France. It lies on the Seine.", "France", "france.md"),
    Passage("italy", "Rome is the capital of Italy. It lies on the Tiber.", "Italy", "italy.md"),
    Passage("spain", "Madrid is the capital of Spain. It lies on the Manzanares.", "Spain", "spain.md"),
    Passage("tennis", "A tennis match is won by the best of three or five sets.", "Tennis", "tennis.md"),
]
QUESTION, EARLIER = "On which river does it lie?", "What is the capital of Italy?"
DISCOUNT = 0.5


@pytest.fixture(scope="module")
def client(rag_system):
    with rag_system.client() as opened:
        opened.create_collection(COLLECTION)
        opened.upsert(PASSAGES, collection=COLLECTION)
        yield opened


def score(rag_system, passage, answer):
    """log p(y_t | x, d, y_<t) of each token."""
    given = generator_pb2.GenerationInput(
        question=QUESTION,
        passages=[generator_pb2.GeneratorPassage(id=passage.id, title=passage.title, text=passage.text)],
    )
    request = generator_pb2.ScoreRequest(input=given, answers=[answer], model="DECODING_MODEL_RAG_TOKEN")
    with grpc.insecure_channel(rag_system.generator.address) as channel:
        reply = generator_pb2_grpc.GeneratorServiceStub(channel).Score(request, timeout=60)
    return np.array([token.log_probability for token in reply.scores[0].tokens])


def test_a_dialogues_log_probability_is_rag_turns(rag_system, client):
    """log p(y) = sum_t LSE_j( log omega_j + LSE_i( log pi_ji + a_jit ) ), from the turns' own retrievals."""
    answer = client.answer(
        QUESTION,
        history=[Turn("user", EARLIER), Turn("assistant", "Rome")],
        collection=COLLECTION,
        top_k=len(PASSAGES),
        turn_discount=DISCOUNT,
        model="rag_token",
        num_beams=1,
        min_confidence=0.0,
    )
    log_weights = np.log([1 / (1 + DISCOUNT), DISCOUNT / (1 + DISCOUNT)])
    per_token = {passage.id: score(rag_system, passage, answer.raw_text) for passage in PASSAGES}
    turns = []
    for query, log_weight in zip((QUESTION, EARLIER), log_weights, strict=True):
        found = client.retrieve(query, collection=COLLECTION, top_k=len(PASSAGES)).passages
        rows = [hit.log_prior + per_token[hit.passage.id] for hit in found]
        turns.append(log_weight + np.logaddexp.reduce(rows))
    assert answer.finish_reason is FinishReason.END_OF_SEQUENCE
    assert answer.log_probability == pytest.approx(float(np.logaddexp.reduce(turns).sum()), abs=1e-3)
    (italy,) = [each for each in answer.citations if each.passage.id == "italy"]
    alone = client.retrieve(QUESTION, collection=COLLECTION, top_k=len(PASSAGES)).passages
    assert italy.prior > next(np.exp(hit.log_prior) for hit in alone if hit.passage.id == "italy")


def test_a_label_is_chosen_with_probabilities_that_sum_to_one(client):
    answer = client.answer(
        "What is the capital of Spain?",
        task="fact_verification",
        labels=["Lisbon", "Madrid", "Vienna"],
        collection=COLLECTION,
        top_k=2,
    )
    assert (answer.text, answer.citations[0].passage.id) == ("Madrid", "spain")
    assert sum(each.probability for each in answer.labels) == pytest.approx(1)
    assert answer.confidence == answer.labels[0].probability > 0.9


def test_items_like_a_liked_source_are_recommended(client):
    answer = client.answer("", task="recommendation", liked_sources=["italy.md"], collection=COLLECTION)
    names = [item.name for item in answer.items]
    assert names[2:] == ["tennis.md"]
    assert set(names[:2]) == {"france.md", "spain.md"}
    assert answer.items[0].citations[0].passage.source == names[0]


def test_without_labels_or_a_template_the_default_generator_refuses_by_name(client):
    with pytest.raises(errors.FailedPrecondition, match=r"options\.labels"):
        client.answer("Rome is in Italy.", task="fact_verification", collection=COLLECTION)
    with pytest.raises(errors.FailedPrecondition, match="query_rewriting"):
        client.answer(QUESTION, task="dialogue", dialogue_mode="query_rewriting", collection=COLLECTION)
