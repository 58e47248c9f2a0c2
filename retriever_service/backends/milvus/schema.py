"""The collections that a collection has in Milvus, and a document's form there.

Source: Milvus's reference for schemas, full text search (BM25 function) and index parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymilvus
from pymilvus import DataType

from retriever_service.backends.documents import document_of, shared_fields
from retriever_service.backends.operands import indexed_values
from retriever_service.backends.remote import Document
from retriever_service.collection import CollectionSettings, FieldType
from retriever_service.lexical_index import NO_STEMMING, indexed_text
from retriever_service.limits import LIMITS
from serving.errors import InvalidRequest

MAX_VARCHAR_BYTES = 65_535
K1, B = 1.2, 0.75  # As tantivy's.
DOCUMENT_FIELDS = ["row", "title", "source", "text", "rest", "id"]
_EMPTY_VECTOR = np.empty(0, np.float32)


def documents_schema(settings: CollectionSettings, *, has_lexical: bool) -> pymilvus.CollectionSchema:
    """The passages' columns."""
    schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LIMITS.max_id_bytes)
    schema.add_field("row", DataType.INT64)
    schema.add_field("digest", DataType.VARCHAR, max_length=64)
    schema.add_field("source", DataType.VARCHAR, max_length=LIMITS.max_source_bytes)
    schema.add_field("title", DataType.VARCHAR, max_length=LIMITS.max_title_bytes)
    analysed: dict[str, Any] = {}
    if has_lexical:
        stemmer = {"type": "stemmer", "language": settings.language}
        filters = ["lowercase"] if settings.language == NO_STEMMING else ["lowercase", stemmer]
        analysed = {"enable_analyzer": True, "analyzer_params": {"tokenizer": "standard", "filter": filters}}
    schema.add_field("text", DataType.VARCHAR, max_length=MAX_VARCHAR_BYTES, **analysed)
    schema.add_field("rest", DataType.JSON)
    schema.add_field("fields", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=settings.encoder.dim)
    if has_lexical:
        schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        kind = pymilvus.FunctionType.BM25
        schema.add_function(pymilvus.Function("bm25", kind, input_field_names=["text"], output_field_names=["words"]))
    return schema


def documents_indexes(index_type: str, *, has_lexical: bool) -> Any:
    """How vectors and words are indexed. Vectors are compared by inner product: those of COSINE have length 1."""
    indexes = pymilvus.MilvusClient.prepare_index_params()
    params = {"M": 16, "efConstruction": 200} if index_type == "HNSW" else {}
    indexes.add_index("vector", index_type=index_type, metric_type="IP", params=params)
    if has_lexical:
        bm25 = {"bm25_k1": K1, "bm25_b": B}
        indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=bm25)
    return indexes


def records_schema() -> pymilvus.CollectionSchema:
    """The records' columns; Milvus wants a vector in every collection."""
    schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=LIMITS.max_source_bytes + 16)
    schema.add_field("value", DataType.JSON)
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)
    return schema


def records_indexes() -> Any:
    """The index that Milvus wants for every vector."""
    indexes = pymilvus.MilvusClient.prepare_index_params()
    indexes.add_index("unused", index_type="FLAT", metric_type="L2")
    return indexes


def document_to(document: Document, declared: Mapping[str, FieldType]) -> dict[str, Any]:
    """A document as it is sent.

    Raises:
        InvalidRequest: When its text is longer than Milvus takes.
    """
    passage = document.passage
    text = indexed_text(passage.title, passage.text)
    if len(text.encode()) > MAX_VARCHAR_BYTES:
        raise InvalidRequest(
            f"passage {passage.id!r}: title and text together are over {MAX_VARCHAR_BYTES:,} bytes, Milvus's limit",
            field="passage.text",
            reason="TOO_LARGE",
        )
    fields = {
        name: [value] if isinstance(value, str) else value
        for name, value in indexed_values(passage.metadata, declared).items()
    }
    return {**shared_fields(document), "text": text, "fields": fields, "vector": document.vector}


def document_from(entity: Mapping[str, Any]) -> Document:
    """The inverse of `document_to`; without a vector where it was not asked for."""
    title, text = entity["title"], entity["text"]
    vector = np.array(entity["vector"], np.float32) if "vector" in entity else _EMPTY_VECTOR
    return document_of(entity, text[len(title) + 1 :] if title else text, vector)
