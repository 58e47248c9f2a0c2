import asyncio
import threading
from contextlib import contextmanager

import numpy as np

from retriever_service.collection import Passage
from retriever_service.dense.sharing import SharedRuns
from retriever_service.fusion import Fusion
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Found, Mode, Plan, SearchQuery
from retriever_service.store import Store


async def test_callers_of_equal_plans_share_runs_and_each_gets_its_own_hits():
    runs, is_open = [], threading.Event()

    def run(queries, plan):
        is_open.wait(10)
        runs.append((len(queries), plan.top_k))
        return Found(tuple((query.text, plan.top_k) for query in queries), 0.5, 0.25)

    shared = SharedRuns(run, "c")
    await shared.start()
    plans = {top_k: Plan(top_k, 50, Fusion(), 0.05) for top_k in (5, 7)}
    asked = [
        ([SearchQuery(Mode.DENSE, f"{i}.{j}", None) for j in range(1 + i % 3)], plans[5 + 2 * (i % 2)])
        for i in range(20)
    ]
    waiting = asyncio.gather(*(shared.run(queries, plan) for queries, plan in asked))
    await asyncio.sleep(0)
    is_open.set()
    found = await waiting
    await shared.stop()
    for one, (queries, plan) in zip(found, asked, strict=True):
        assert one.hits == tuple((query.text, plan.top_k) for query in queries)
        assert (one.search_seconds, one.fetch_seconds) == (0.5, 0.25)
    assert sum(size for size, _ in runs) == sum(len(queries) for queries, _ in asked)
    assert len(runs) <= 4


async def test_concurrent_searches_by_vector_read_the_store_together_and_find_what_each_finds_alone(
    open_retriever, upsert, fake_encoder, monkeypatch
):
    reads, reading = [], Store.reading

    @contextmanager
    def counted(store):
        reads.append(threading.current_thread().name)
        with reading(store) as reader:
            yield reader

    words = "paris berlin dodgers capital france germany series"
    passages = [Passage(f"p{i}", "", f"{word} {i}") for i, word in enumerate(words.split() * 6)]
    options = [RetrievalOptions(mode=Mode.DENSE, top_k=1 + i % 3, min_score=-1.0) for i in range(24)]
    queries = [QueryInput(vector=np.asarray(fake_encoder.encode([p])[0])) for p in passages[:24]]
    async with open_retriever() as retriever:
        await upsert(retriever, passages)
        alone = [await retriever.retrieve([one], how) for one, how in zip(queries, options, strict=True)]
        monkeypatch.setattr(Store, "reading", counted)
        together = await asyncio.gather(
            *(retriever.retrieve([one], how) for one, how in zip(queries, options, strict=True))
        )
        monkeypatch.undo()
    for one, other in zip(together, alone, strict=True):
        assert [(hit.passage, hit.dense_score, hit.log_prior) for hit in one.results[0]] == [
            (hit.passage, hit.dense_score, hit.log_prior) for hit in other.results[0]
        ]
    assert len(reads) < 12
