import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from retriever_service.encoder import PassageText, Query
from retriever_service.encoding import Encoding
from serving.batching import BatchPolicy
from serving.errors import FailedPrecondition


@pytest.fixture
async def encoding(fake_encoder, other_encoder):
    encoders = {"fake": fake_encoder, "other": other_encoder}
    encoding = Encoding(encoders.__getitem__, "fake", BatchPolicy(8, 1_000), others=["other"])
    await encoding.start()
    yield encoding
    await encoding.stop()


async def test_vectors_come_in_the_order_of_the_texts(encoding, fake_encoder):
    texts = [f"text {i} " + "word " * (i * 7 % 5) for i in range(200)]
    encoded = await encoding.embed_passages(fake_encoder, [PassageText(text) for text in texts])
    assert np.array_equal(encoded, np.stack([fake_encoder.vector(text) for text in texts]))


async def test_concurrent_requests_share_batches(encoding, fake_encoder):
    fake_encoder.batches.clear()
    await asyncio.gather(*(encoding.embed(fake_encoder, [Query(f"q{i}")]) for i in range(16)))
    assert len(fake_encoder.batches) < 16


async def test_a_query_overtakes_waiting_passages(encoding, fake_encoder):
    release, started = threading.Event(), threading.Event()
    encode = fake_encoder.encode

    def slow(inputs):
        started.set()
        release.wait(5)
        return encode(inputs)

    fake_encoder.encode = slow
    passages = [PassageText(f"passage {i}") for i in range(40)]
    bulk = asyncio.create_task(encoding.embed_passages(fake_encoder, passages))
    await asyncio.to_thread(started.wait, 5)
    query = asyncio.create_task(encoding.embed(fake_encoder, [Query("urgent")]))
    await asyncio.sleep(0)
    fake_encoder.batches.clear()
    release.set()
    await query
    position = next(i for i, batch in enumerate(fake_encoder.batches) if Query("urgent") in batch)
    assert position <= 1  # Behind the batch at work, before the others.
    assert all(len({type(item) for item in batch}) == 1 for batch in fake_encoder.batches)
    assert len(await bulk) == 40


async def test_encoders_besides_the_default_are_loaded_once_when_first_used(encoding, other_encoder):
    assert await encoding.encoder("other") is other_encoder
    assert await encoding.encoder("other") is other_encoder
    with pytest.raises(FailedPrecondition, match=r"'third'.*fake, other"):
        await encoding.encoder("third")


async def test_a_collection_keeps_its_encoder_when_the_servers_default_becomes_another(encoding, other_encoder):
    made_with = other_encoder.info.identity
    assert await encoding.encoder_of(made_with, collection="old", follows_server=True) is other_encoder
    with pytest.raises(FailedPrecondition, match="ingest into a new collection"):
        await encoding.encoder_of(replace(made_with, digest="gone"), collection="old", follows_server=True)


async def test_nothing_to_embed_is_an_empty_matrix(encoding, fake_encoder):
    assert (await encoding.embed(fake_encoder, [])).vectors.shape == (0, 16)
