"""What a task makes of a question, and what the caller is told while it is made. Plain values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.stages import Delta, Generation, Retrieval

NO_PASSAGES, ABSTAINED, RANKED = "no_passages", "abstained", "unspecified"


@dataclass(frozen=True, slots=True)
class Part:
    """A passage of a part of an answer, by its place in the retrieval, with its share of the part."""

    index: int
    share: float


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a document; `prior` is its share of the passages' mass, `parts` are best first."""

    heading: str
    prior: float
    generation: Generation
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing recommended, with what explains it, best first."""

    name: str
    probability: float
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Made:
    """What an answer is presented from: passages, and what its task made of them; nothing where there were none."""

    retrieval: Retrieval
    generation: Generation | None = None
    sections: Sequence[Section] = ()
    items: Sequence[Item] = ()
    rewritten_question: str = ""
    from_cache: bool = False

    @property
    def generations(self) -> Sequence[Generation]:
        """Everything decoded."""
        return [self.generation] if self.generation is not None else [each.generation for each in self.sections]

    @property
    def is_answered(self) -> bool:
        """Whether there is anything to present."""
        return bool(self.generations or self.items)

    @property
    def confidence(self) -> float:
        """The answer's, the best item's, the least of the sections'."""
        if self.items:
            return self.items[0].probability
        return min((each.confidence for each in self.generations), default=0.0)

    @property
    def posteriors(self) -> Sequence[float]:
        """What each passage of the retrieval explains."""
        if self.generation is not None:
            return self.generation.posteriors
        if not self.sections:
            return [math.exp(log_prior) for log_prior in self.retrieval.log_priors]
        shares = {part.index: section.prior * part.share for section in self.sections for part in section.parts}
        return [shares[index] for index in range(len(self.retrieval.passages))]


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage by its place in the retrieval, with p(d|x) and p(d|x,y)."""

    index: int
    prior: float
    posterior: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with all that explains it."""

    answer_id: str
    finish_reason: str
    citations: Sequence[Citation]
    made: Made
    timings: Mapping[str, float]

    @property
    def has_text(self) -> bool:
        """Whether there is an answer to show."""
        return self.finish_reason not in (NO_PASSAGES, ABSTAINED)


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage of a streamed answer has ended; with `section`, that section of it."""

    stage: str
    seconds: float
    section: str = ""


Event: TypeAlias = StageEnded | Retrieval | Delta | Answer
