"""How answers and passages look in a terminal, and as JSON."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rag_client import (
    Answer,
    Citation,
    FinishReason,
    Hypothesis,
    LabelProbability,
    Passage,
    Provenance,
    RecommendedItem,
    RetrievedPassage,
    StageTiming,
)

_PLAIN_WIDTH = 140
_SNIPPET_CHARS, _REASON_CHARS = 220, 100
_DIGEST_CHARS = 12


def make_console() -> Console:
    """A console on standard output; where that is no terminal, lines are wide and plain."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def print_json(value: object) -> None:
    """Prints one of the client's values as one JSON object."""
    print(json.dumps(to_plain(value), ensure_ascii=False, indent=2))


def to_plain(value: object) -> Any:
    """Dataclasses as objects, vectors as lists, times as ISO 8601, errors as text, non-finite numbers as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Exception):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def print_answer(answer: Answer, console: Console, *, max_citations: int | None = None) -> None:
    """The answer, what it won against, the (best) passages it cites, how long it took and what made it."""
    console.print(_items(answer.items) if answer.items else answer_line(answer))
    if answer.rewritten_question:
        console.print(Text(f"understood as: {answer.rewritten_question}", style="dim"))
    if answer.labels:
        console.print()
        console.print(_labels(answer.labels))
    if any(each.ranking_score is not None for each in answer.hypotheses):
        console.print()
        console.print(_candidates(answer.hypotheses))
    if answer.citations and not answer.items:
        console.print()
        console.print(_citations(answer, answer.citations[:max_citations]))
    console.print()
    confidence = f"confidence {answer.confidence:.2f}, " if answer.is_answered else ""
    model = f"log p(y|x) {answer.log_probability:.3f}, {answer.model}" if answer.model else "no model"
    cached = ", from the cache" if answer.from_cache else ""
    how = f"{confidence}{model}{cached}"
    for line in (how, _timings(answer.timings), _provenance(answer.provenance)):
        console.print(Text(line, style="dim"), soft_wrap=True)


def answer_line(answer: Answer) -> Text:
    """The answer's text, or plainly why there is none."""
    if answer.finish_reason is FinishReason.NO_PASSAGES:
        return Text("No answer: no passage was found.", style="yellow")
    if answer.finish_reason is FinishReason.ABSTAINED:
        return Text(f"No answer: the confidence of {answer.confidence:.2f} is under the threshold.", style="yellow")
    return Text(answer.text.rstrip() or "(the answer is empty)", style="" if answer.sections else "bold")


def print_passages(passages: Iterable[RetrievedPassage], console: Console) -> None:
    """Retrieved passages with the scores of each stage; a reranked one's score is the reranker's."""
    table = _numbers("rank", "score", "dense", "lexical", "prior", last="passage")
    for each in passages:
        prior = f"{np.exp(each.log_prior):.3f}"
        scores = (_number(each.score), _number(each.dense_score), _number(each.lexical_score))
        shown = snippet(each.passage.text, "")
        if each.neighbors:
            shown.append(f"  (+ {len(each.neighbors)} beside it)", "dim")
        table.add_row(str(each.rank), *scores, prior, _passage(each.passage, shown))
    console.print(table)


def snippet(text: str, answer: str, max_chars: int = _SNIPPET_CHARS) -> Text:
    """The part of a text around the answer's first occurrence (else its beginning), with the answer highlighted."""
    line = " ".join(text.split())
    words = answer.split()
    pattern = r"\s".join(map(re.escape, words))
    found = re.search(rf"(?<!\w){pattern}(?!\w)", line, re.IGNORECASE) if words else None
    middle = (found.start() + found.end()) // 2 if found else 0
    start = max(0, min(middle - max_chars // 2, len(line) - max_chars))
    end = min(len(line), start + max_chars)
    cut = Text(("…" if start else "") + line[start:end] + ("…" if end < len(line) else ""))
    if words:
        cut.highlight_regex(re.compile(rf"(?<!\w){pattern}(?!\w)", re.IGNORECASE), "bold reverse")
    return cut


def _citations(answer: Answer, citations: Iterable[Citation]) -> Table:
    table = _numbers("posterior", "prior", last="cited passage")
    for citation in citations:
        passage = citation.passage
        row = _passage(passage, snippet(passage.text, answer.text))
        table.add_row(f"{citation.posterior:.3f}", f"{citation.prior:.3f}", row)
    return table


def _candidates(hypotheses: Iterable[Hypothesis]) -> Table:
    table = _numbers("ranking", "log p(y|x)", "retrieval", last="candidate")
    for each in hypotheses:
        scores = (each.ranking_score, each.log_probability, each.retrieval_score)
        table.add_row(*map(_number, scores), Text(each.text))
    return table


def _labels(labels: Iterable[LabelProbability]) -> Table:
    table = _numbers("probability", "log p(y|x)", last="label")
    for each in labels:
        table.add_row(f"{each.probability:.3f}", _number(each.log_probability), Text(each.label))
    return table


def _items(items: Iterable[RecommendedItem]) -> Table:
    table = _numbers("probability", last="item, and why")
    for each in items:
        reasons = [snippet(citation.passage.text, "", _REASON_CHARS) for citation in each.citations]
        table.add_row(f"{each.probability:.3f}", Text("\n  ").join([Text(each.name, "bold"), *reasons]))
    return table


def _numbers(*names: str, last: str) -> Table:
    """An empty table of numbers and one column of text."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(last)
    return table


def _passage(passage: Passage, shown: Text) -> Text:
    page = f", page {passage.span.page}" if passage.span is not None and passage.span.page else ""
    where = f"  {passage.source or passage.id}{page}"
    return Text.assemble((passage.title or passage.id, "bold"), (where, "cyan"), "\n", shown, "\n")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _timings(timings: Iterable[StageTiming]) -> str:
    return ", ".join(f"{timing.stage} {timing.duration_seconds * 1000:.0f} ms" for timing in timings)


def _provenance(provenance: Provenance) -> str:
    def digest(text: str) -> str:
        return text[:_DIGEST_CHARS] or "?"

    return (
        f"collection {provenance.collection} at {provenance.sequence}, "
        f"index {provenance.index_generation} ({digest(provenance.index_digest)}), "
        f"encoder {provenance.encoder} ({digest(provenance.encoder_digest)}), "
        f"generator {provenance.generator} ({digest(provenance.generator_digest)}), "
        f"version {provenance.build_version}"
    )
