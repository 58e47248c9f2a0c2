"""A writer that publishes without end, or a reader that follows, to be killed. Not a test.

`replica_process.py writer|reader DATA_DIR SHARED_DIR FIRST_VERSION`; says on stdout what is done.
"""

import asyncio
import functools
import hashlib
import itertools
import sys
from pathlib import Path

import numpy as np

from retriever_service.catalog import Catalog
from retriever_service.collection import EncoderIdentity, Passage
from retriever_service.config import RetrieverConfig
from retriever_service.dense.choice import DenseIndexes
from retriever_service.encoder import EncoderInfo
from retriever_service.encoding import Encoding
from retriever_service.metrics import retriever_metrics
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.replicas.building import build_collection, build_replication
from retriever_service.retriever import Retriever
from retriever_service.upserting import UpsertItem, UpsertMessage
from serving.batching import BatchPolicy

NUM_PASSAGES = 20


class Encoder:
    info = EncoderInfo(EncoderIdentity("fake", "d1", 8, True), "Fake", "cpu", 1, 128)

    def encode(self, inputs):
        seeds = [int.from_bytes(hashlib.sha256(one.text.encode()).digest()[:4], "big") for one in inputs]
        vectors = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def publish_versions(retriever, publisher, first):
    for version in itertools.count(first):
        items = [UpsertItem(Passage(f"p{i}", "", f"fact {i} of version {version}")) for i in range(NUM_PASSAGES)]

        async def messages(items=items):
            yield UpsertMessage("", items)

        await retriever.upsert(messages())
        if version % 3 == 0:
            await retriever.maintenance.create_snapshot("default", f"version {version}")
        await publisher.publish()
        say(f"published {version}")


async def check_versions(retriever, follower):
    while True:
        if retriever.library.is_open("default"):
            found = await retriever.retrieve([QueryInput("fact")], RetrievalOptions(top_k=NUM_PASSAGES))
            texts = [hit.passage.text for hit in found.results[0]]
            assert len(texts) == NUM_PASSAGES, texts
            (version,) = {text.split()[-1] for text in texts}
            say(f"served {version}")
        await asyncio.sleep(0.01)


async def main(role, data_dir, shared, first):
    url, interval = f"file://{shared}", 0.02
    config = RetrieverConfig(data_dir=Path(data_dir), publish_to=url, writer_address="w")
    if role == "reader":
        config = RetrieverConfig(data_dir=Path(data_dir), follow=url, follow_interval_seconds=interval)
    catalog = Catalog(config.data_dir, DenseIndexes(), functools.partial(build_collection, config))
    encoding = Encoding(lambda _: Encoder(), "fake", BatchPolicy(8, 1_000))
    retriever = Retriever(catalog, encoding, retriever_metrics())
    replication = build_replication(config, retriever.library, retriever_metrics())
    await retriever.start()
    await replication.start()
    if role == "writer":
        await publish_versions(retriever, replication, int(first))
    else:
        await check_versions(retriever, replication)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
