"""The indexes that a collection has in Elasticsearch, and a document's form there. Pure.

Source: Elastic's reference for index settings, analysis, similarity and the dense_vector field type.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from retriever_service.backends.documents import document_of, shared_fields
from retriever_service.backends.operands import indexed_values
from retriever_service.backends.remote import Document
from retriever_service.collection import (
    CollectionSettings,
    FieldType,
    LexicalScoring,
    Metric,
)
from retriever_service.lexical_index import NO_STEMMING

MAX_DIMS = 4_096
_TYPES = {
    FieldType.STRING: "keyword",
    FieldType.INT: "long",
    FieldType.DOUBLE: "double",
    FieldType.BOOL: "boolean",
}
_SIMILARITIES = {Metric.COSINE: "cosine", Metric.INNER_PRODUCT: "max_inner_product"}
# Words as tantivy's simple tokenizer splits them, so that every backend looks for the same ones.
_NOT_A_WORD = r"[^\p{IsAlphabetic}\p{N}]+"
# The score of `tf_idf`: what Elasticsearch calls docCount and docFreq, it counts with deleted documents until a merge.
_TF_IDF = (
    "double idf = 1.0 + Math.log((field.docCount + 1.0) / (term.docFreq + 1.0)); "
    "return query.boost * Math.sqrt(doc.freq) * idf * idf / Math.sqrt(doc.length);"
)


def documents_index(
    settings: CollectionSettings, index_type: str, num_shards: int, num_replicas: int
) -> dict[str, Any]:
    """Settings and mappings of the index that holds the passages.

    Args:
        settings: The collection's.
        index_type: Of `index_options`; said always, for the server's default loses precision without a word.
        num_shards: Primary shards.
        num_replicas: Copies of each.
    """
    return {
        "settings": {
            "number_of_shards": num_shards,
            "number_of_replicas": num_replicas,
            # A purge takes out every deleted document, not only those of segments with many.
            "merge": {"policy": {"expunge_deletes_allowed": 0}},
            "similarity": {"tf_idf": {"type": "scripted", "script": {"source": _TF_IDF}}},
            "analysis": _analysis(settings.language),
        },
        "mappings": {
            "dynamic": "strict",
            "_meta": {"encoder": settings.encoder.name, "encoder_digest": settings.encoder.digest},
            "_source": {"excludes": ["vector"]},
            "properties": _properties(settings, index_type),
        },
    }


def records_index(num_replicas: int) -> dict[str, Any]:
    """Settings and mappings of the index that holds head and sources."""
    properties = {
        "kind": {"type": "keyword"},
        "name": {"type": "keyword"},
        "value": {"type": "object", "enabled": False},
    }
    return {
        "settings": {"number_of_shards": 1, "number_of_replicas": num_replicas},
        "mappings": {"dynamic": "strict", "properties": properties},
    }


def document_to(document: Document, declared: Mapping[str, FieldType]) -> dict[str, Any]:
    """A document as it is sent."""
    passage = document.passage
    return {
        **shared_fields(document),
        "text": passage.text,
        "fields": indexed_values(passage.metadata, declared),
        "vector": document.vector.tolist(),
        "exact": base64.b64encode(document.vector.astype("<f4", copy=False).tobytes()).decode(),
    }


def document_from(source: Mapping[str, Any]) -> Document:
    """The inverse of `document_to`; without a vector where it was not asked for."""
    vector = np.frombuffer(base64.b64decode(source.get("exact", "")), "<f4").astype(np.float32)
    return document_of(source, source["text"], vector)


def _similarity(settings: CollectionSettings) -> str:
    return "tf_idf" if settings.lexical_scoring is LexicalScoring.TF_IDF else "BM25"


def _properties(settings: CollectionSettings, index_type: str) -> dict[str, Any]:
    return {
        "id": {"type": "keyword"},
        "row": {"type": "long"},
        "digest": {"type": "keyword"},
        "source": {"type": "keyword"},
        "title": {"type": "text", "index": False, "copy_to": "words"},
        "text": {"type": "text", "index": False, "copy_to": "words"},
        "words": {"type": "text", "analyzer": "passage", "similarity": _similarity(settings)},
        "rest": {"type": "object", "enabled": False},
        "fields": {"properties": {name: {"type": _TYPES[kind]} for name, kind in settings.filterable_fields.items()}},
        "vector": {
            "type": "dense_vector",
            "dims": settings.encoder.dim,
            "index": True,
            "similarity": _SIMILARITIES[settings.metric],
            "index_options": {"type": index_type},
        },
        # The float32 numbers themselves: `vector` is for searching, and newer servers do not give it back.
        "exact": {"type": "binary"},
    }


def _analysis(language: str) -> dict[str, Any]:
    is_stemmed = language != NO_STEMMING
    stemmer = {"stem": {"type": "snowball", "language": language.capitalize()}} if is_stemmed else {}
    passage = {"type": "custom", "tokenizer": "words", "filter": ["lowercase", *stemmer]}
    return {
        "tokenizer": {"words": {"type": "pattern", "pattern": _NOT_A_WORD}},
        "filter": stemmer,
        "analyzer": {"passage": passage},
    }
