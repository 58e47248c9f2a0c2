"""Every backend that can run here, behind one fixture: `open_retriever` opens retrievers on the same collections."""

import importlib.util
import itertools
import os
from contextlib import asynccontextmanager

import pytest

from retriever_service.backends.catalog import RemoteCatalog
from retriever_service.catalog import Catalog
from retriever_service.encoding import Encoding
from retriever_service.metrics import retriever_metrics
from retriever_service.retriever import Retriever
from retriever_service.upserting import UpsertItem, UpsertMessage
from serving.batching import BatchPolicy
from tests.retriever_service.conftest import FakeEncoder

PREFIXES = (f"t{os.getpid()}n{number}" for number in itertools.count())


# What each backend needs: an installed module, or a variable that names a server.
NEEDS = {
    "elasticsearch-fake": "elasticsearch",
    "elasticsearch": "ELASTICSEARCH_URL",
    "milvus-lite": "milvus_lite",
    "milvus": "MILVUS_URL",
}
REMOTE = [
    name
    for name, need in NEEDS.items()
    if (need in os.environ if need.isupper() else importlib.util.find_spec(need) is not None)
]


@pytest.fixture(scope="session")
def fake_elasticsearch():
    from tests.backends.fake_elasticsearch import FakeElasticsearch

    fake = FakeElasticsearch()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def milvus_lite_file(tmp_path_factory):
    return str(tmp_path_factory.mktemp("milvus") / "lite.db")


@pytest.fixture(params=["local", *REMOTE])
def backend(request):
    """The backend's name."""
    return request.param


@pytest.fixture
def make_catalog(backend, request, tmp_path):
    """Makes catalogs of one set of collections, empty at first."""
    prefix = next(PREFIXES)
    if backend == "local":
        return lambda: Catalog(tmp_path / "data")
    if backend.startswith("elasticsearch"):
        from retriever_service.backends.elasticsearch.server import ElasticsearchOptions, ElasticsearchServer

        fake = backend == "elasticsearch-fake"
        url = request.getfixturevalue("fake_elasticsearch").url if fake else os.environ["ELASTICSEARCH_URL"]
        options = ElasticsearchOptions(url, index_type="flat", prefix=prefix, num_replicas=0)
        return lambda: RemoteCatalog(ElasticsearchServer(options))
    from retriever_service.backends.milvus.server import MilvusOptions, MilvusServer

    lite = backend == "milvus-lite"
    url = request.getfixturevalue("milvus_lite_file") if lite else os.environ["MILVUS_URL"]
    milvus = MilvusOptions(url, index_type="FLAT", prefix=prefix, timeout_seconds=60)
    return lambda: RemoteCatalog(MilvusServer(milvus))


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
async def open_retriever(make_catalog, encoder):
    """Opens a retriever; again and again, if need be. Remote collections are dropped at the end."""

    @asynccontextmanager
    async def open_(encoder=encoder, others=()):
        encoders = {one.info.identity.name: one for one in (encoder, *others)}
        name = encoder.info.identity.name
        encoding = Encoding(encoders.__getitem__, name, BatchPolicy(8, 1_000), others=list(encoders))
        retriever = Retriever(make_catalog(), encoding, retriever_metrics(), refresh_wait_seconds=10)
        await retriever.start()
        try:
            yield retriever
        finally:
            await retriever.close()

    yield open_
    catalog = make_catalog()
    if isinstance(catalog, RemoteCatalog):
        catalog.lock()
        for name in catalog.names():
            catalog.drop(name)
        catalog.unlock()


@pytest.fixture
async def retriever(open_retriever):
    async with open_retriever() as opened:
        yield opened


@pytest.fixture
def lexical(retriever, backend):
    """Skips where there is no lexical stage to test."""
    if backend == "milvus" and not retriever.library._catalog._abilities.lexical:
        pytest.skip("Milvus before 2.5 has no lexical stage")


@pytest.fixture
def upsert():
    """Sends passages as a stream of one message."""

    async def send(retriever, passages, collection="", **stream):
        items = [one if isinstance(one, UpsertItem) else UpsertItem(one) for one in passages]

        async def messages():
            yield UpsertMessage(collection, items, **stream)

        return await retriever.upsert(messages())

    return send
