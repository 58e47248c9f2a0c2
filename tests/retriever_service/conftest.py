"""What the retriever's tests share: a fake encoder, retrievers on temporary directories, the real MiniLM."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from retriever_service.bi_encoder import BiEncoder
from retriever_service.catalog import Catalog
from retriever_service.collection import EncoderIdentity, Passage, Vectors
from retriever_service.dense.choice import DenseIndexes
from retriever_service.encoder import EncoderInfo, EncoderInput, PassageText
from retriever_service.encoding import Encoding
from retriever_service.metrics import retriever_metrics
from retriever_service.retriever import Retriever
from retriever_service.upserting import UpsertItem, UpsertMessage, UpsertResult
from serving.batching import BatchPolicy

DIM = 16


class FakeEncoder:
    """Texts that share words have similar vectors. Remembers what it encoded."""

    def __init__(self, name: str = "fake", digest: str = "d1", dim: int = DIM) -> None:
        self.info = EncoderInfo(EncoderIdentity(name, digest, dim, True), "Fake", "cpu", 1, 128)
        self.encoded: list[EncoderInput] = []
        self.batches: list[list[EncoderInput]] = []

    def encode(self, inputs: Sequence[EncoderInput]) -> Vectors:
        self.encoded += inputs
        self.batches.append(list(inputs))
        return np.stack([self.vector(i.joined() if isinstance(i, PassageText) else i.text) for i in inputs])

    def vector(self, text: str) -> Vectors:
        total = np.full(self.info.identity.dim, 1e-3)
        for word in text.lower().split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            total += np.random.default_rng(seed).normal(size=self.info.identity.dim)
        return (total / np.linalg.norm(total)).astype(np.float32)


OpenRetriever = Callable[..., AbstractAsyncContextManager[Retriever]]


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def other_encoder() -> FakeEncoder:
    return FakeEncoder("other", "d2", DIM)


@pytest.fixture
def open_retriever(tmp_path: Path, fake_encoder: FakeEncoder) -> OpenRetriever:
    """Opens a retriever on one data directory; again and again, if need be."""

    @asynccontextmanager
    async def open_(
        encoder: FakeEncoder = fake_encoder, others: Sequence[FakeEncoder] = (), data_dir: Path = tmp_path / "data"
    ) -> AsyncIterator[Retriever]:
        encoders = {one.info.identity.name: one for one in (encoder, *others)}
        names = [one.info.identity.name for one in others]
        encoding = Encoding(encoders.__getitem__, encoder.info.identity.name, BatchPolicy(8, 1_000), others=names)
        retriever = Retriever(Catalog(data_dir, DenseIndexes()), encoding, retriever_metrics(), refresh_wait_seconds=10)
        await retriever.start()
        try:
            yield retriever
        finally:
            await retriever.close()

    return open_


async def _upsert(
    retriever: Retriever, passages: Sequence[Passage | UpsertItem], collection: str = "", **stream: object
) -> UpsertResult:
    items = [one if isinstance(one, UpsertItem) else UpsertItem(one) for one in passages]

    async def messages() -> AsyncIterator[UpsertMessage]:
        yield UpsertMessage(collection, items, **stream)  # type: ignore[arg-type]

    return await retriever.upsert(messages())


@pytest.fixture
def upsert() -> Callable[..., object]:
    """Sends passages as a stream of one message."""
    return _upsert


@pytest.fixture(scope="session")
def minilm() -> BiEncoder:
    return BiEncoder("all-MiniLM-L6-v2")
