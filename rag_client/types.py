"""What the client gives and takes: plain frozen values, no wire messages.

Scores are raw and higher is better; times are in seconds; `log_*` are natural logarithms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rag_client.enums import FusionMethod, RerankMethod

Vector: TypeAlias = npt.NDArray[np.float32]  #: One embedding, float32 (D,).
Value: TypeAlias = str | int | float | bool | tuple[str, ...]  #: One metadata value.


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A half-open range of characters in a document's extracted text."""

    start_char: int
    end_char: int
    page: int = 0  #: 1-based; 0 when the document has no pages.


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is retrieved and cited. `content_digest` and `sequence` are set by the server."""

    id: str
    text: str
    title: str = ""
    source: str = ""
    span: TextSpan | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    content_digest: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedPassage:
    """A passage whose embedding was already computed by the collection's encoder."""

    passage: Passage
    vector: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is looked for: text, a ready vector, or both (vector for the dense stage, text for the lexical one)."""

    text: str = ""
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Fusion:
    """How two rankings become one. What is None takes the collection's value."""

    method: FusionMethod | str | None = None
    dense_weight: float | None = None
    lexical_weight: float | None = None
    rrf_k: float | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sample instead of search. The same seed gives the same answer."""

    temperature: float | None = None
    top_k: int = 0
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class CandidateRanking:
    """Generate several answers, then let the retriever's encoder choose: the weighted sum of two logarithms decides."""

    num_candidates: int  #: 2 to 16.
    generation_weight: float | None = None  #: Of log p(c|x). Default 1.
    retrieval_weight: float | None = None  #: Of log sum_i exp(s(x + c, d_i) / tau). Default 1.


@dataclass(frozen=True, slots=True)
class Rerank:
    """A second look at the hits before the best are returned.

    "question_likelihood" wants a generator that was taught to write questions; the default one makes rankings worse.
    "answerability" wants one that was taught to answer nothing where a passage holds no answer; the default one was.
    """

    method: RerankMethod | str
    num_candidates: int = 0  #: Hits that are read again, up to 100; 0 is the server's choice.
    answerability_weight: float | None = None  #: Of "answerability" alone: score per nat of log-odds. Default 0.085.


@dataclass(frozen=True, slots=True)
class Diversity:
    """Maximal marginal relevance: each passage is chosen for its score and against those chosen before it."""

    relevance: float | None = None  #: What the score weighs against novelty, in [0, 1]. Default 0.7.


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long one stage took; `stage` is e.g. "retrieve", "generate", "total"."""

    stage: str
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which artefacts made a reply. Digests are SHA-256 in hex."""

    collection: str = ""
    index_generation: int = 0
    sequence: int = 0
    index_digest: str = ""
    encoder: str = ""
    encoder_digest: str = ""
    generator: str = ""
    generator_digest: str = ""
    build_version: str = ""
    collection_state: str = ""  #: Two retrievals of the same state and options find the same.


@dataclass(frozen=True, slots=True, eq=False)
class RetrievedPassage:
    """A passage as one query found it. A stage that did not score it has None."""

    passage: Passage
    rank: int  #: 1-based.
    score: float
    log_prior: float  #: log p(d|x); sums to 1 (as probabilities) over the passages returned.
    dense_score: float | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
    neighbors: tuple[Passage, ...] = ()  #: Those before and after it in its source, in order.
    vector: Vector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """What one query found, best first. `error` is set where this query of a batch failed."""

    passages: tuple[RetrievedPassage, ...]
    provenance: Provenance
    timings: tuple[StageTiming, ...] = ()
    error: Exception | None = None
