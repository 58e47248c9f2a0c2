"""The named choices of the client. Each may also be given as its plain string, e.g. `mode="dense"`."""

from enum import StrEnum


class RetrievalMode(StrEnum):
    """Which stages of the retriever look for passages."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


class FusionMethod(StrEnum):
    """How the dense and the lexical result become one ranking."""

    LINEAR = "linear"
    RRF = "rrf"


class RerankMethod(StrEnum):
    """What the score of a second look at the hits is."""

    CROSS_ENCODER = "cross_encoder"
    QUESTION_LIKELIHOOD = "question_likelihood"
    ANSWERABILITY = "answerability"


class DecodingModel(StrEnum):
    """The decoder's way of combining passages."""

    RAG_SEQUENCE = "rag_sequence"
    RAG_TOKEN = "rag_token"
    FUSION_IN_DECODER = "fusion_in_decoder"
    CLOSED_BOOK = "closed_book"


class Task(StrEnum):
    """What an answer is for."""

    QUESTION_ANSWERING = "question_answering"
    DIALOGUE = "dialogue"
    SUMMARIZATION = "summarization"
    DOCUMENT_GENERATION = "document_generation"
    RECOMMENDATION = "recommendation"
    TRANSLATION = "translation"
    FACT_VERIFICATION = "fact_verification"


class Role(StrEnum):
    """Who spoke."""

    USER = "user"
    ASSISTANT = "assistant"


class DialogueMode(StrEnum):
    """How a dialogue uses its history: passages of several turns, or the question written anew."""

    RAG_TURN = "rag_turn"
    QUERY_REWRITING = "query_rewriting"


class SequenceScoring(StrEnum):
    """How RAG-Sequence scores its hypotheses."""

    THOROUGH = "thorough"
    FAST = "fast"


class FinishReason(StrEnum):
    """Why decoding ended."""

    UNSPECIFIED = "unspecified"
    END_OF_SEQUENCE = "end_of_sequence"
    LENGTH = "length"
    STOP = "stop"
    NO_PASSAGES = "no_passages"
    ABSTAINED = "abstained"


class TextRole(StrEnum):
    """What embedded texts are: some encoders embed queries and passages differently."""

    QUERY = "query"
    PASSAGE = "passage"


class Metric(StrEnum):
    """How embeddings are compared."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"


class LexicalScoring(StrEnum):
    """How the lexical stage scores."""

    BM25 = "bm25"
    TF_IDF = "tf_idf"


class FieldType(StrEnum):
    """Type of a filterable metadata field."""

    STRING = "string"
    INT = "int"
    DOUBLE = "double"
    BOOL = "bool"


class Rating(StrEnum):
    """What a person thought of an answer, in one word."""

    GOOD = "good"
    BAD = "bad"
