"""A collection's passages and their stored vectors, taken into memory: what training searches, exactly, at every step.

They come out of the retriever's own files, or over gRPC from a running gateway or retriever.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rag_client import EmbeddedPassage, RagClient
from retriever_service.collection import LexicalScoring, Metric, Vectors
from retriever_service.fusion import Fusion, FusionMethod
from retriever_service.generations import STORE_FILE, Generations
from retriever_service.store import Store
from retriever_service.stored_settings import settings_from_json
from training.retriever.data import Passage


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a collection scores: see `retriever_service.collection.CollectionSettings`."""

    metric: Metric
    temperature: float
    fusion: Fusion
    lexical_scoring: LexicalScoring
    language: str


@dataclass(frozen=True, slots=True, eq=False)
class KnowledgeBase:
    """One index generation of a collection.

    Attributes:
        passages: N of them, in the order of their rows.
        vectors: (N, D) float32.
        sentences: (M, D) float32, of all passages that have any.
        sentence_places: (M,) int64, the passage of each sentence, ascending.
        scoring: Its temperature, its fusion and so on.
        encoder: Name of the encoder that made the vectors.
        index_generation: Its number.
    """

    passages: Sequence[Passage]
    vectors: Tensor
    sentences: Tensor
    sentence_places: Tensor
    scoring: Scoring
    encoder: str
    index_generation: int


def collection_directory(data_dir: Path, collection: str) -> Path:
    """Where a retriever keeps a collection.

    Raises:
        SystemExit: There is none of this name.
    """
    directory = data_dir / "collections" / collection
    if not Generations.is_collection(directory):
        raise SystemExit(f"{data_dir} holds no collection {collection!r}: `rag ingest` makes it")
    return directory


def read_from_files(data_dir: Path, collection: str, index_generation: int = 0) -> KnowledgeBase:
    """One state of a collection in a retriever's data directory; 0 is the generation that is served.

    Nothing is locked: a retriever may be at work there.
    """
    directory = collection_directory(data_dir, collection)
    record = Generations.read(directory)
    number = index_generation or record.active
    path = Generations.path_in(directory, record, number) / STORE_FILE
    store = Store(path, is_frozen=number not in (record.head, record.successor))
    try:
        with store.reading() as reader:
            settings = settings_from_json(reader.meta("settings"))
            stored = [one for batch in reader.scan_passages(1024, with_vectors=True) for one in batch]
            rows = np.fromiter((row for row, *_ in chain.from_iterable(reader.scan_texts())), np.int64)
            sentences = reader.sentences(rows, settings.encoder.dim)
    finally:
        store.close()
    if number in record.scorings:
        settings = record.scorings[number].apply(settings)
    scoring = Scoring(
        settings.metric, settings.temperature, settings.fusion, settings.lexical_scoring, settings.language
    )
    passages = [Passage(one.passage.id, one.passage.title, one.passage.text) for one in stored]
    vectors = [one.vector for one in stored if one.vector is not None]
    base = _knowledge_base(passages, vectors, scoring, settings.encoder.name, number)
    places = torch.from_numpy(np.searchsorted(rows, sentences.rows))
    return replace(base, sentences=torch.from_numpy(sentences.vectors), sentence_places=places)


def read_from_service(address: str, collection: str) -> KnowledgeBase:
    """The state of a collection that a running gateway or retriever serves, without vectors of sentences."""
    with RagClient(address) as client:
        described = client.describe_collection(collection)
        batches = client.export_collection(
            collection=collection, index_generation=described.index_generation, include_vectors=True
        )
        embedded = [one for batch in batches for one in batch.passages if isinstance(one, EmbeddedPassage)]
    settings, given = described.settings, described.settings.fusion
    if settings.sentence_vectors:
        logging.warning("vectors of sentences are not exported: training searches by those of whole passages")
    if given is None or settings.temperature is None:
        raise SystemExit(f"{address} does not tell how collection {collection!r} scores: is it of another release?")
    scoring = Scoring(
        Metric(settings.metric or Metric.COSINE),
        settings.temperature,
        Fusion(FusionMethod(given.method or FusionMethod.LINEAR), given.dense_weight or 0, given.lexical_weight or 0),
        LexicalScoring(settings.lexical_scoring or LexicalScoring.BM25),
        settings.language,
    )
    passages = [Passage(one.passage.id, one.passage.title, one.passage.text) for one in embedded]
    vectors = [np.asarray(one.vector, np.float32) for one in embedded]
    return _knowledge_base(passages, vectors, scoring, described.encoder.name, described.index_generation)


def _knowledge_base(
    passages: list[Passage], vectors: list[Vectors], scoring: Scoring, encoder: str, number: int
) -> KnowledgeBase:
    if not passages:
        raise SystemExit("the collection holds no passages")
    whole = torch.from_numpy(np.stack(vectors))
    return KnowledgeBase(passages, whole, whole[:0], torch.empty(0, dtype=torch.int64), scoring, encoder, number)
