import hashlib

import numpy as np
import pytest

from retriever_service.catalog import Catalog
from retriever_service.collection import Passage
from retriever_service.encoding import Encoding
from retriever_service.metrics import retriever_metrics
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.reranking import Reranking
from retriever_service.retriever import Retriever
from serving.batching import BatchPolicy
from serving.errors import FailedPrecondition, InvalidRequest

FACTS = [Passage(f"p{i}", f"Title {i}", f"common fact number{i}", "f.md") for i in range(12)]


class FakeReranker:
    """Scores by what it was told of passage and query; remembers its batches."""

    digest = "r1"

    def __init__(self):
        self.batches = []

    def score(self, pairs):
        self.batches.append(list(pairs))
        return [self.of(pair.query, pair.passage.text) for pair in pairs]

    def of(self, query, text):
        return hashlib.sha256(f"{query}{text}".encode()).digest()[0] / 16 - 8


@pytest.fixture
def reranker():
    return FakeReranker()


@pytest.fixture
async def retriever(tmp_path, fake_encoder, reranker, upsert):
    encoding = Encoding(lambda _: fake_encoder, "fake", BatchPolicy(8, 1_000))
    reranking = Reranking(lambda: reranker, BatchPolicy(5, 1_000))
    retriever = Retriever(
        Catalog(tmp_path / "data"), encoding, retriever_metrics(), reranking=reranking, refresh_wait_seconds=10
    )
    await retriever.start()
    await upsert(retriever, FACTS)
    reranker.batches.clear()
    yield retriever
    await retriever.close()


async def ask(retriever, *texts, **options):
    return await retriever.retrieve([QueryInput(text) for text in texts], RetrievalOptions(**options))


def best(reranker, query, passages=FACTS):
    return sorted((one.id for one in passages), key=lambda id_: -reranker.of(query, FACTS[int(id_[1:])].text))


async def test_the_rerankers_score_orders_and_makes_the_prior(retriever, reranker):
    found = await ask(retriever, "common fact", top_k=4, num_reread=0)
    hits = found.results[0]
    assert [hit.passage.id for hit in hits] == best(reranker, "common fact")[:4]
    scores = np.array([hit.rerank_score for hit in hits])
    assert [hit.score for hit in hits] == scores.tolist()
    assert [hit.log_prior for hit in hits] == pytest.approx((scores - np.logaddexp.reduce(scores)).tolist())
    assert all(hit.dense_score is not None and hit.lexical_score is not None and hit.vector is None for hit in hits)
    assert found.seconds["rerank"] > 0
    assert found.temperature == 0.05  # The collection's, for who compares vectors.


async def test_only_the_first_candidates_are_read_again_and_never_fewer_than_are_wanted(retriever, reranker):
    first = [hit.passage.id for hit in (await ask(retriever, "number3", top_k=6)).results[0]]
    hits = (await ask(retriever, "number3", top_k=2, num_reread=6)).results[0]
    assert [hit.passage.id for hit in hits] == best(reranker, "number3", [FACTS[int(id_[1:])] for id_ in first])[:2]
    assert sum(map(len, reranker.batches)) == 6
    reranker.batches.clear()
    assert len((await ask(retriever, "number3", top_k=8, num_reread=3)).results[0]) == 8
    assert sum(map(len, reranker.batches)) == 8


async def test_title_text_and_query_go_to_the_model_in_batches_of_similar_length(retriever, reranker):
    await ask(retriever, "common", "number5", top_k=3, num_reread=7)
    pairs = [pair for batch in reranker.batches for pair in batch]
    assert len(pairs) == 14
    assert max(map(len, reranker.batches)) <= 5
    assert {pair.query for pair in pairs} == {"common", "number5"}
    assert {pair.passage.title for pair in pairs} <= {one.title for one in FACTS}


async def test_the_requests_temperature_and_least_score_are_the_rerankers(retriever, reranker):
    everything = (await ask(retriever, "common", top_k=12, num_reread=12)).results[0]
    least = everything[5].score
    hits = (await ask(retriever, "common", top_k=12, num_reread=12, min_score=least, temperature=4.0)).results[0]
    assert [hit.score for hit in hits] == [hit.score for hit in everything if hit.score >= least]
    scores = np.array([hit.score for hit in hits]) / 4.0
    assert [hit.log_prior for hit in hits] == pytest.approx((scores - np.logaddexp.reduce(scores)).tolist())


async def test_diversity_is_chosen_among_the_reranked(retriever, reranker):
    plain = (await ask(retriever, "common", top_k=12, num_reread=12, include_vectors=True)).results[0]
    hits = (await ask(retriever, "common", top_k=3, num_reread=12, relevance=0.2)).results[0]
    assert hits[0].passage.id == plain[0].passage.id
    vectors = {hit.passage.id: hit.vector for hit in plain}
    scores = np.array([hit.score for hit in plain])
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    similar = [float(vectors[hit.passage.id] @ vectors[hits[0].passage.id]) for hit in plain]
    gains = 0.2 * scaled[1:] - 0.8 * np.array(similar[1:])
    assert hits[1].passage.id == plain[1 + int(np.argmax(gains))].passage.id
    assert hits[0].vector is None


async def test_neighbors_come_with_reranked_passages(retriever):
    (hit,) = (await ask(retriever, "common", top_k=1, num_reread=12, num_neighbors=1)).results[0]
    assert hit.passage.id not in {one.id for one in hit.neighbors}
    assert 1 <= len(hit.neighbors) <= 2


async def test_a_query_without_text_cannot_be_reranked_and_fails_alone(retriever, fake_encoder):
    queries = [QueryInput(vector=fake_encoder.vector("common")), QueryInput("common")]
    found = await retriever.retrieve(queries, RetrievalOptions(num_reread=0, top_k=1))
    assert isinstance(found.results[0], InvalidRequest)
    assert len(found.results[1]) == 1


async def test_the_state_names_the_reranker_too(retriever, reranker):
    before = await retriever.state_of("default")
    assert (await ask(retriever, "common")).origin.state == before
    reranker.digest = "r2"
    assert await retriever.state_of("default") != before


async def test_a_reranker_that_fails_is_told_by_the_check(retriever, reranker, monkeypatch):
    await retriever.check()
    monkeypatch.setattr(reranker, "of", lambda query, text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await retriever.check()


async def test_without_a_reranker_the_flag_is_named(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, FACTS)
        with pytest.raises(FailedPrecondition, match="--reranker NAME_OR_PATH"):
            await ask(retriever, "common", num_reread=0)
