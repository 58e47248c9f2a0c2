"""The public Python client of rag-serving.

    from rag_client import RagClient

    with RagClient("localhost:50050") as rag:
        answer = rag.answer("What is the capital of France?")
        print(answer.text, [citation.passage.source for citation in answer.citations])

`AsyncRagClient` has the same methods, awaited. Errors are in `rag_client.errors`.
"""

from rag_client.async_client import AsyncRagClient
from rag_client.client import RagClient
from rag_client.collection_types import (
    Collection,
    CollectionSettings,
    DeleteResult,
    Embeddings,
    GatewayInfo,
    GeneratorInfo,
    ItemStatus,
    Limit,
    ModelInfo,
    RetrieverInfo,
    ServiceInfo,
    Source,
    UpsertResult,
)
from rag_client.enums import (
    DecodingModel,
    FieldType,
    FinishReason,
    FusionMethod,
    LexicalScoring,
    Metric,
    Rating,
    RetrievalMode,
    SequenceScoring,
    TextRole,
)
from rag_client.errors import RagError
from rag_client.filters import Filter, field
from rag_client.options import AnswerOptions, CollectionOptions, RetrievalOptions
from rag_client.types import (
    Answer,
    Citation,
    EmbeddedPassage,
    Event,
    FinalAnswer,
    Fusion,
    Hypothesis,
    LeaveOneOut,
    Passage,
    PassagesRetrieved,
    Provenance,
    Query,
    Retrieval,
    RetrievedPassage,
    Sampling,
    StageEnded,
    StageTiming,
    TextSpan,
    Token,
    TokenDelta,
    Value,
)

__all__ = [
    "Answer",
    "AnswerOptions",
    "AsyncRagClient",
    "Citation",
    "Collection",
    "CollectionOptions",
    "CollectionSettings",
    "DecodingModel",
    "DeleteResult",
    "EmbeddedPassage",
    "Embeddings",
    "Event",
    "FieldType",
    "Filter",
    "FinalAnswer",
    "FinishReason",
    "Fusion",
    "FusionMethod",
    "GatewayInfo",
    "GeneratorInfo",
    "Hypothesis",
    "ItemStatus",
    "LeaveOneOut",
    "LexicalScoring",
    "Limit",
    "Metric",
    "ModelInfo",
    "Passage",
    "PassagesRetrieved",
    "Provenance",
    "Query",
    "RagClient",
    "RagError",
    "Rating",
    "Retrieval",
    "RetrievalMode",
    "RetrievalOptions",
    "RetrievedPassage",
    "RetrieverInfo",
    "Sampling",
    "SequenceScoring",
    "ServiceInfo",
    "Source",
    "StageEnded",
    "StageTiming",
    "TextRole",
    "TextSpan",
    "Token",
    "TokenDelta",
    "UpsertResult",
    "Value",
    "field",
]
