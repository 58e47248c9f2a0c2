"""The keyword options of the client's calls. What is left out takes the collection's or the server's default."""

from collections.abc import Sequence
from typing import TypedDict

from rag_client.answer_types import Turn
from rag_client.enums import DecodingModel, DialogueMode, RetrievalMode, SequenceScoring, Task
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


class TaskOptions(TypedDict, total=False):
    """What an answer is for, and what its task reads; see docs/tasks.md. Another task's options are refused."""

    task: Task | str  #: Default question_answering, with a history dialogue.
    history: Sequence[Turn]  #: Dialogue and recommendation: oldest first, at most 64.
    dialogue_mode: DialogueMode | str  #: Default: query_rewriting where the generator was taught it, else rag_turn.
    turn_discount: float  #: In (0, 1]: what each turn weighs beside the next. Default 0.5; recommendation 1.
    num_turns: int  #: Earlier turns of the user that count. Default 3; recommendation all.
    labels: Sequence[str]  #: Fact verification: 2 to 64. Default: the generator's.
    source: str  #: Summarization: of this source, whole.
    max_sections: int  #: Document generation: 1 to 20. Default 5.
    liked_sources: Sequence[str]  #: Recommendation: at most 32.
    item_field: str  #: Recommendation: metadata field that names the item. Default: the source is.
    translation_field: str  #: Translation: metadata field that holds a passage's translation. Default "translation".


class CompareOptions(RetrievalOptions, DecodingOptions, ExplanationOptions, total=False):
    """What shapes an answer to a question."""

    min_confidence: float  #: In [0, 1]: below it the answer is ABSTAINED and empty; 0 is never. Default: the server's.


class AnswerOptions(CompareOptions, TaskOptions, total=False):
    """Everything that shapes an answer."""


class CollectionOptions(TypedDict, total=False):
    """What a collection is made with, besides its name; see `CollectionSettings`."""

    metric: str
    encoder: str
    filterable_fields: dict[str, str]
    temperature: float
    fusion: Fusion
    lexical_scoring: str
    sentence_vectors: bool
    language: str
    index_factory: str


RETRIEVAL_NAMES = frozenset(RetrievalOptions.__annotations__)
DECODING_NAMES = frozenset(DecodingOptions.__annotations__)
EXPLANATION_NAMES = frozenset(ExplanationOptions.__annotations__)
COMPARE_NAMES = RETRIEVAL_NAMES | DECODING_NAMES | EXPLANATION_NAMES | {"min_confidence"}
ANSWER_NAMES = COMPARE_NAMES | frozenset(TaskOptions.__annotations__)
