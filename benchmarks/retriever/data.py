"""What is searched: synthetic clustered vectors, the same for every engine, and their true neighbours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retriever_service.batch import Batch, EncodedPassage
from retriever_service.bi_encoder import BiEncoder
from retriever_service.catalog import Catalog
from retriever_service.collection import CollectionRequest, Passage, Vectors
from retriever_service.generations import STORE_FILE
from retriever_service.store import Store
from retriever_service.writing import Writer

ENCODER = "all-MiniLM-L6-v2"  # Only its identity: vectors come ready.
DIM, TOP_K, CANDIDATES = 384, 10, 50  # Candidates: what a retrieval of 10 passages asks of the index.
_NUM_CLUSTERS, _BATCH, _NUM_JUDGED = 2_000, 10_000, 100
_QUERIES_FROM = 1 << 40  # Beyond every vector that is stored.
_WORDS = [f"word{number}" for number in range(5_000)]


@dataclass(frozen=True, slots=True)
class Corpus:
    """So many vectors; `factory` is the FAISS factory string that the collection asks for, "" is by size."""

    num_vectors: int
    factory: str = ""

    @property
    def name(self) -> str:
        """Of its directory and its cells."""
        return f"{self.num_vectors}{'-' if self.factory else ''}{self.factory.replace(',', '-')}"

    def batches(self) -> Iterator[tuple[int, Vectors]]:
        """Where each batch of vectors starts, and the batch."""
        for start in range(0, self.num_vectors, _BATCH):
            yield start, make_vectors(start, min(_BATCH, self.num_vectors - start))


def make_vectors(start: int, count: int) -> Vectors:
    """Unit vectors (count, D) around centres that are the same in every call."""
    centres = np.random.default_rng(0).normal(size=(_NUM_CLUSTERS, DIM)).astype(np.float32)
    random = np.random.default_rng([1, start])
    vectors = centres[random.integers(0, _NUM_CLUSTERS, count)] + random.normal(size=(count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def queries(count: int) -> Vectors:
    """Queries (count, D), none of them stored."""
    return make_vectors(_QUERIES_FROM, count)


@cache
def truth(num_vectors: int, directory: Path) -> npt.NDArray[np.int64]:
    """The true first neighbours (J, k) of the first J queries; computed once for a directory."""
    path = directory / f"truth-{num_vectors}.npy"
    if not path.exists():
        judged = queries(_NUM_JUDGED)
        best = faiss.ResultHeap(len(judged), TOP_K, keep_max=True)
        for start, vectors in Corpus(num_vectors).batches():
            scores, found = faiss.knn(judged, vectors, TOP_K, metric=faiss.METRIC_INNER_PRODUCT)
            best.add_result(scores, found + start)
        best.finalize()
        directory.mkdir(parents=True, exist_ok=True)
        np.save(path, best.I)
    found_before: npt.NDArray[np.int64] = np.load(path)
    return found_before


def recall(found: npt.NDArray[np.int64], true: npt.NDArray[np.int64]) -> float:
    """Recall@k of (J, k) found numbers."""
    shared = [len(set(one) & set(other)) for one, other in zip(found.tolist(), true.tolist(), strict=True)]
    return round(sum(shared) / true.size, 4)


def write_collection(data_dir: Path, corpus: Corpus) -> None:
    """Fills the store of a retriever, from where an interrupted run left it."""
    catalog = Catalog(data_dir)
    catalog.lock()
    if not catalog.names():
        identity = BiEncoder(ENCODER).info.identity
        catalog.create(CollectionRequest("default", index_factory=corpus.factory).settle(identity))
    store = Store(data_dir / "collections" / "default" / "generations" / "1" / STORE_FILE)
    with store.reading() as reader:
        there = reader.num_passages()
    writer = Writer(store, {})
    for start, vectors in corpus.batches():
        if start >= there:
            writer.write(Batch([EncodedPassage(_passage(start + i), vector) for i, vector in enumerate(vectors)]))
    store.close()
    catalog.unlock()


def _passage(number: int) -> Passage:
    words = np.random.default_rng(number).integers(0, len(_WORDS), 8)
    return Passage(f"p{number}", "", f"{number} " + " ".join(_WORDS[word] for word in words))


def read_json(path: Path) -> Any:
    """The content of a file; None when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
