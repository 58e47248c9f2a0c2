"""Whether one run is better than another on the same questions: paired, question by question. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.estimates import Estimate, bootstrap, permutation_p_value
from evaluation.report import DEFAULT_DEPTH
from evaluation.results import Result, Run
from evaluation.scores import is_right, score


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric over the questions that have it in both runs.

    Attributes:
        before: The first run's mean.
        after: The second run's mean.
        change: Mean of after minus before, with its paired bootstrap interval.
        p_value: Of the paired permutation test, two-sided.
    """

    before: Estimate
    after: Estimate
    change: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class Changed:
    """A question that only one of the runs has right."""

    id: str
    question: str
    golds: Sequence[str]
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the second run differs from the first.

    Attributes:
        settings: Setting → the first run's value and the second's, where they differ.
        num_questions: Of both.
        differences: By metric.
        gained: Wrong before, right after.
        lost: Right before, wrong after.
    """

    settings: Mapping[str, tuple[Any, Any]]
    num_questions: int
    differences: Mapping[str, Difference]
    gained: Sequence[Changed]
    lost: Sequence[Changed]

    def to_json(self) -> str:
        """The comparison as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def compare(before: Run, after: Run) -> Comparison:
    """Compares two runs.

    Raises:
        ValueError: They are not over the same questions with the same known answers.
    """
    pairs = _pairs(before, after)
    depth = min(int(run.settings.get("depth", DEFAULT_DEPTH)) for run in (before, after))
    scores = [(score(old, depth=depth), score(new, depth=depth)) for old, new in pairs]
    names = dict.fromkeys(name for old, new in scores for name in old if name in new)
    settings = {**before.settings, **after.settings}
    return Comparison(
        settings={
            name: (before.settings.get(name), after.settings.get(name))
            for name in settings
            if before.settings.get(name) != after.settings.get(name)
        },
        num_questions=len(pairs),
        differences={
            name: _difference([(old[name], new[name]) for old, new in scores if name in old and name in new])
            for name in names
        },
        gained=[_changed(old, new) for old, new in pairs if is_right(new) > is_right(old)],
        lost=[_changed(old, new) for old, new in pairs if is_right(new) < is_right(old)],
    )


def _pairs(before: Run, after: Run) -> list[tuple[Result, Result]]:
    old, new = ({result.id: result for result in run.results} for run in (before, after))
    if old.keys() != new.keys():
        raise ValueError(
            f"the runs are not over the same questions: {len(old.keys() - new.keys())} are in the first alone, "
            f"{len(new.keys() - old.keys())} in the second alone; is one unfinished, or of another file or --limit?"
        )
    if not old:
        raise ValueError("the runs hold no questions")
    for id_ in old:
        if _asked(old[id_]) != _asked(new[id_]):
            raise ValueError(f"the runs are not over the same questions: {id_!r} has another text or known answer")
    return [(old[id_], new[id_]) for id_ in old]


def _asked(result: Result) -> tuple[Any, ...]:
    return result.question, result.history, result.target, result.golds


def _difference(pairs: Sequence[tuple[float, float]]) -> Difference:
    changes = [new - old for old, new in pairs]
    before, after = (bootstrap(values) for values in zip(*pairs, strict=True))
    return Difference(before, after, bootstrap(changes), permutation_p_value(changes))


def _changed(old: Result, new: Result) -> Changed:
    return Changed(
        old.id, old.question, old.golds, *(each.text or each.finish_reason or each.error for each in (old, new))
    )
