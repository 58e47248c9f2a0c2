import asyncio

import numpy as np
import pytest

from retriever_service.collection import CollectionRequest
from retriever_service.dense.choice import DenseIndexes, DenseOptions
from retriever_service.dense.segmented import SegmentedIndex
from retriever_service.dense.sharing import SharedSearch
from retriever_service.dense.torch_index import TorchIndex
from retriever_service.dense_index import Hits
from serving.errors import FailedPrecondition, InvalidRequest
from tests.retriever_service.dense_sources import FakeStore, settings


def test_the_backend_is_as_configured(tmp_path):
    make = [DenseIndexes(DenseOptions(backend=backend)) for backend in ("faiss", "torch")]
    faiss, torch = (one(tmp_path, settings(), FakeStore().open_source) for one in make)
    assert (type(faiss), type(torch)) == (SegmentedIndex, TorchIndex)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_gpu_that_is_not_there_is_refused_at_the_start(backend):
    with pytest.raises(FailedPrecondition) as caught:
        DenseIndexes(DenseOptions(backend=backend, device="cuda:97"))
    assert caught.value.reason == "DEVICE_NOT_USABLE"


async def test_a_collection_may_ask_for_an_index_by_faisss_factory_string(open_retriever):
    async with open_retriever() as retriever:
        await retriever.library.create(CollectionRequest("docs", index_factory="HNSW16"))
        assert (await retriever.library.describe("docs")).settings.index_factory == "HNSW16"
        with pytest.raises(InvalidRequest, match="index_factory 'HNSWX'"):
            await retriever.library.create(CollectionRequest("bad", index_factory="HNSWX"))
        assert not retriever.library.has("bad")
    async with open_retriever() as retriever:
        assert (await retriever.library.describe("docs")).settings.index_factory == "HNSW16"


class Recording:
    """Finds rows that tell which query and which place among the hits they are."""

    def __init__(self):
        self.sizes = []

    def search(self, queries, count):
        self.sizes.append((len(queries), count))
        rows = (queries[:, :1] * 100).astype(np.int64) + np.arange(count)
        return Hits(rows, np.zeros(rows.shape, np.float32))

    def search_among(self, queries, rows, count):
        return "among"


async def test_concurrent_callers_share_searches_and_each_gets_its_own_hits():
    index = Recording()
    shared = SharedSearch(index, "c")
    await shared.start()
    asked = [(number, 1 + number % 3, 2 + number % 4) for number in range(20)]
    queries = [np.full((num, 4), number, np.float32) for number, num, _ in asked]

    async def ask(vectors, count):
        async with shared.searched(vectors, count) as searched:
            await asyncio.sleep(0)
            return searched, searched.search(vectors, count)

    found = await asyncio.gather(*(ask(one, count) for one, (_, _, count) in zip(queries, asked, strict=True)))
    await shared.stop()
    for (_, hits), (number, num, count) in zip(found, asked, strict=True):
        assert np.array_equal(hits.rows, np.tile(number * 100 + np.arange(count), (num, 1)))
    assert found[0][0] is index  # It was alone.
    assert sum(size for size, _ in index.sizes) == sum(num for _, num, _ in asked)
    assert len(index.sizes) < 5
    assert found[1][0].search_among(queries[0], np.array([1]), 1) == "among"
