"""The keyword options of the client's calls. What is left out takes the collection's or the server's default."""

from collections.abc import Sequence
from typing import TypedDict

from rag_client.enums import DecodingModel, RetrievalMode, SequenceScoring
from rag_client.filters import Filter
from rag_client.types import CandidateRanking, Diversity, Fusion, Rerank, Sampling


class RetrievalOptions(TypedDict, total=False):
    """How passages are found and weighed."""

    collection: str  #: Default "default".
    mode: RetrievalMode | str  #: Default hybrid.
    top_k: int  #: 1 to 100. Default 5.
    filter: Filter  #: Built with `field("year") >= 2020`.
    fusion: Fusion
    temperature: float  #: tau of log p(d|x) = log_softmax(score / tau).
    min_sequence: int  #: Read your writes: an upsert's `sequence`.
    index_generation: int  #: Answer from this index generation.
    num_candidates: int  #: Hits each stage contributes before fusion, up to 1,000.
    min_score: float  #: Drop hits whose final score is lower.
    num_neighbors: int  #: Passages before and after each hit, up to 5.
    rerank: Rerank
    diversity: Diversity  #: Passages that do not say the same twice.
    include_vectors: bool


class DecodingOptions(TypedDict, total=False):
    """How an answer is decoded."""

    model: DecodingModel | str  #: Default rag_sequence; for streams rag_token.
    sequence_scoring: SequenceScoring | str
    num_beams: int  #: 1 (greedy) to 16.
    max_new_tokens: int  #: 1 to 512.
    min_new_tokens: int
    length_penalty: float
    no_repeat_ngram_size: int
    bad_words: Sequence[str]
    forced_words: Sequence[str]
    stop: Sequence[str]
    num_return_sequences: int
    sampling: Sampling
    candidate_ranking: CandidateRanking
    prune_prior_mass: float  #: In [0, 1).
    early_stopping: bool


class ExplanationOptions(TypedDict, total=False):
    """What an answer explains besides its citations."""

    token_posteriors: bool
    leave_one_out: bool


class AnswerOptions(RetrievalOptions, DecodingOptions, ExplanationOptions, total=False):
    """Everything that shapes an answer."""

    min_confidence: float  #: In [0, 1]: below it the answer is ABSTAINED and empty; 0 is never. Default: the server's.


class CollectionOptions(TypedDict, total=False):
    """What a collection is made with, besides its name; see `CollectionSettings`."""

    metric: str
    encoder: str
    filterable_fields: dict[str, str]
    temperature: float
    fusion: Fusion
    lexical_scoring: str
    language: str
    index_factory: str


RETRIEVAL_NAMES = frozenset(RetrievalOptions.__annotations__)
DECODING_NAMES = frozenset(DecodingOptions.__annotations__)
EXPLANATION_NAMES = frozenset(ExplanationOptions.__annotations__)
ANSWER_NAMES = RETRIEVAL_NAMES | DECODING_NAMES | EXPLANATION_NAMES | {"min_confidence"}
