"""A document in sections: what was found under each title, summarised."""

import math
from collections.abc import Sequence

from gateway.answers import Made, Part, Section
from gateway.mixture import keep
from gateway.run import Run
from gateway.stages import Generation, Question, Retrieval
from gateway.tasks.asking import at_length, in_words_of
from gateway.tasks.question_answering import find
from serving.errors import RagError


async def make(question: Question, run: Run) -> Made:
    """Retrieves, lays out, and writes all sections at once.

    Raises:
        serving.errors.Deadline: Not every section was written in time.
    """
    checkpoint = await run.checkpoint()
    everything = await find(question, run)
    layout = outline(everything, question.task_options.max_sections)
    found = keep(everything, [index for _, indices in layout for index in indices])
    run.tell(found)
    asked, places, start = [], [], 0
    for heading, indices in layout:
        places.append(range(start, start + len(indices)))
        start += len(indices)
        worded = in_words_of(checkpoint, question, section=heading)
        asked.append((heading, at_length(checkpoint, worded), keep(found, places[-1])))
    written = await run.generate_sections(asked) if asked else []
    headings = [heading for heading, _ in layout]
    sections = [_section(*each, found) for each in zip(headings, places, written, strict=True)]
    return Made(found, sections=sections)


def outline(found: Retrieval, max_sections: int) -> list[tuple[str, list[int]]]:
    """The headings of the heaviest sections by prior mass, with their passages' places in the retrieval.

    A section is what was found under one title, else of one source, else one passage.
    """
    sections: dict[str, list[int]] = {}
    for index, facts in enumerate(found.facts):
        sections.setdefault(facts.title or facts.source or facts.id, []).append(index)
    heaviest = sorted(sections.items(), key=lambda section: -_mass(found, section[1]))
    return heaviest[:max_sections]


def _section(heading: str, indices: Sequence[int], generation: Generation, found: Retrieval) -> Section:
    if len(generation.posteriors) != len(indices):
        raise RagError(f"the generator returned {len(generation.posteriors)} posteriors for {len(indices)} passages")
    parts = [Part(index, share) for index, share in zip(indices, generation.posteriors, strict=True)]
    return Section(heading, _mass(found, indices), generation, tuple(sorted(parts, key=lambda part: -part.share)))


def _mass(found: Retrieval, indices: Sequence[int]) -> float:
    return sum(math.exp(found.log_priors[index]) for index in indices)
