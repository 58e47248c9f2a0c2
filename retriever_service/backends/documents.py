"""The part of a stored document that is the same in every engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retriever_service.backends.remote import Document
from retriever_service.collection import MetadataValue, Passage, Span, Vectors


def shared_fields(document: Document) -> dict[str, Any]:
    """What every engine keeps besides the text, the vector and the filterable values."""
    passage, span = document.passage, document.passage.span
    return {
        "id": passage.id,
        "row": document.row,
        "digest": passage.content_digest,
        "source": passage.source,
        "title": passage.title,
        "rest": {
            "metadata": dict(passage.metadata),
            "span": None if span is None else [span.start_char, span.end_char, span.page],
            "sequence": passage.sequence,
            "duplicate_sources": list(document.duplicate_sources),
        },
    }


def document_of(stored: Mapping[str, Any], text: str, vector: Vectors) -> Document:
    """The inverse of `shared_fields`, with the text and the vector as the engine had them."""
    rest = stored["rest"]
    metadata: dict[str, MetadataValue] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in rest["metadata"].items()
    }
    passage = Passage(
        stored["id"],
        stored["title"],
        text,
        stored["source"],
        None if rest["span"] is None else Span(*rest["span"]),
        metadata,
        rest["sequence"],
    )
    return Document(stored["row"], passage, vector, tuple(rest["duplicate_sources"]))
