"""Items like those that a user liked, with the passages that explain them. Asks no generator."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.answers import Item, Made, Part
from gateway.mixture import keep, mix
from gateway.run import Run
from gateway.stages import Question, Retrieval

MAX_QUERIES = 128  # What a retriever is asked at once.
_MAX_PASSAGES_OF_A_SOURCE = 4
_MAX_EXPLAINING = 3


async def make(question: Question, run: Run) -> Made:
    """Retrieves for the wish and for each thing liked, and ranks items by their mass in the mixture."""
    options = question.task_options
    turns = [turn.text for turn in reversed(question.history) if turn.role == "user"][: options.num_turns]
    queries = [question.text, *turns] if question.text.strip() else turns
    log_weights = [age * math.log(options.turn_discount) for age in range(len(queries))]
    liked = await _liked(question, MAX_QUERIES - len(queries), run)
    for source in liked:
        queries += [facts.text for facts in source.facts]
        log_weights += [-math.log(len(source.facts))] * len(source.facts)
    found = await run.retrieve(question, queries)
    mixture = mix(found, log_weights)
    excluded = frozenset(facts.item for source in liked for facts in source.facts)
    items = rank_items(mixture, excluded)[: options.top_k]
    shown = keep(mixture, [part.index for item in items for part in item.parts])
    if any(source.state != shown.state for source in liked):  # Written to meanwhile: not to be kept.
        shown = replace(shown, state="")
    run.tell(shown)
    return Made(shown, items=_placed(items))


async def _liked(question: Question, room: int, run: Run) -> Sequence[Retrieval]:
    """Some passages of each source that was liked."""
    sources = question.task_options.liked_sources
    if not sources:
        return ()
    return await run.sources(question, sources, max_passages=min(_MAX_PASSAGES_OF_A_SOURCE, room // len(sources)))


def rank_items(mixture: Retrieval, excluded: frozenset[str]) -> list[Item]:
    """p(item|history) = sum over its passages of p(d|history), over the sum for all items; the most probable first.

    Args:
        mixture: The most probable passages first.
        excluded: Items left out; passages of no item ("") are, too.

    Returns:
        Each with at most three passages, by their place in the mixture.
    """
    places: dict[str, list[int]] = {}
    for index, facts in enumerate(mixture.facts):
        if facts.item and facts.item not in excluded:
            places.setdefault(facts.item, []).append(index)
    masses = {name: np.logaddexp.reduce([mixture.log_priors[i] for i in own]) for name, own in places.items()}
    total = np.logaddexp.reduce(list(masses.values())) if masses else 0.0
    items = [
        Item(
            name,
            math.exp(masses[name] - total),
            tuple(Part(i, math.exp(mixture.log_priors[i] - masses[name])) for i in own[:_MAX_EXPLAINING]),
        )
        for name, own in places.items()
    ]
    return sorted(items, key=lambda item: -item.probability)


def _placed(items: Sequence[Item]) -> list[Item]:
    """The items with their passages' places among the explaining ones, one after the other."""
    placed, start = [], 0
    for item in items:
        parts = tuple(Part(start + rank, part.share) for rank, part in enumerate(item.parts))
        placed.append(replace(item, parts=parts))
        start += len(parts)
    return placed
