"""``python -m training.joint.measure``: what joint training changed, each half before and after, question by question.

Two question encoders and two generators are combined. Recall is counted over the retriever's own search, dense and
hybrid, of all SQuAD passages; answers are RAG-Sequence's over the first five passages, as the service gives them. What
is reported beside each number is the paired difference to both halves before, with its bootstrap interval. Everything
asked is kept in the work folder, so that an interrupted run goes on.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from evaluation.comparison import Comparison, compare
from evaluation.datasets import Question, Target, read_questions
from evaluation.results import Result, ResultFile, Run
from generator_service.request import GenerationRequest
from generator_service.request import Passage as ReadPassage
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Hit, Mode
from serving.errors import RagError
from training.generator.calibration_cases import KnownPassage
from training.generator.open_book import OpenBook
from training.generator.pool import read_json_lines
from training.runtime.flags import add_data_flag

_T = TypeVar("_T")

TOP_K = 5
_AT_ONCE = 8
_SEARCHES = (Mode.DENSE, Mode.HYBRID)
_METRICS = ("recall@1", "recall@5", "exact_match", "f1")


class Asking:
    """Asks all combinations, and keeps what came of it."""

    def __init__(
        self, work: Path, encoders: Mapping[str, str], questions: Sequence[Question], *, num_answers: int
    ) -> None:
        self._work, self._encoders, self._questions, self._num_answers = work, encoders, questions, num_answers
        self._console = Console(stderr=True)

    async def retrieve(self, book: OpenBook, search: Mode, encoder: str) -> Run:
        """The ranking of each question."""
        with ResultFile(self._work / f"{search}-{encoder}.jsonl", {"encoder": self._encoders[encoder]}) as file:
            for chunk in _chunks([place for place, each in enumerate(self._questions) if each.id not in file.results]):
                for place, hits in zip(chunk, await self._hits(book, search, encoder, chunk), strict=True):
                    file.add(self._result(place, hits))
            return Run({"depth": TOP_K}, [file.results[question.id] for question in self._questions])

    async def answer(self, book: OpenBook, search: Mode, encoder: str, generator: str) -> Run:
        """The answer to each of the first questions."""
        settings = {"encoder": self._encoders[encoder], "generator": book.checkpoint}
        asked = self._questions[: self._num_answers]
        with ResultFile(self._work / f"{search}-{encoder}-{generator}.jsonl", settings) as file:
            for chunk in _chunks([place for place, each in enumerate(asked) if each.id not in file.results]):
                hits = await self._hits(book, search, encoder, chunk)
                texts = await asyncio.gather(
                    *(_answer(book, asked[place], found) for place, found in zip(chunk, hits, strict=True))
                )
                for place, found, text in zip(chunk, hits, texts, strict=True):
                    file.add(self._result(place, found, text=text))
                self._console.print(f"{search} {encoder}+{generator}: {len(file.results)} of {len(asked)}")
            return Run({"depth": TOP_K}, [file.results[question.id] for question in asked])

    async def _hits(self, book: OpenBook, search: Mode, encoder: str, places: Sequence[int]) -> list[tuple[Hit, ...]]:
        queries = [QueryInput(self._questions[place].text) for place in places]
        options = RetrievalOptions(encoder, mode=search, top_k=TOP_K)
        found = []
        for hits in (await book.retriever.retrieve(queries, options)).results:
            if isinstance(hits, RagError):
                raise hits
            found.append(hits)
        return found

    def _result(self, place: int, hits: Sequence[Hit], *, text: str | None = None) -> Result:
        question = self._questions[place]
        assert question.gold is not None
        flags = [hit.passage.id in question.gold.passage_ids for hit in hits]
        target = Target.NONE if text is None else question.target
        return Result(
            question.id, question.text, target, question.golds,
            text=text or "", is_answered=bool(text), gold_flags=flags, num_gold=question.gold.num_passages,
        )  # fmt: skip


async def _answer(book: OpenBook, question: Question, hits: Sequence[Hit]) -> str:
    passages = [
        ReadPassage(hit.passage.id, hit.passage.title, hit.passage.text, hit.log_prior, hit.score) for hit in hits
    ]
    return (await book.generator.generate(GenerationRequest(question.text, passages))).best.text


def _chunks(items: Sequence[_T], size: int = _AT_ONCE) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def measure(flags: argparse.Namespace) -> dict[str, Comparison]:
    """Each combination against both halves before, by "search encoder+generator"."""
    rows = read_json_lines(flags.data / "squad-open/passages.jsonl.gz")
    passages = [KnownPassage(row["id"], row["title"], row["text"]) for row in rows]
    questions = sample(read_questions(flags.data / "squad-open/questions_dev.jsonl.gz"), flags.limit)
    encoders = {"before": flags.before_encoder, "after": flags.after_encoder}
    asking = Asking(flags.work, encoders, questions, num_answers=flags.answers)
    rankings: dict[tuple[Mode, str], Run] = {}
    answers: dict[tuple[Mode, str, str], Run] = {}
    for which, generator in (("before", flags.before_generator), ("after", flags.after_generator)):
        async with OpenBook.opened(
            generator, flags.work / "data", num_threads=flags.threads, encoders=tuple(encoders.values())
        ) as book:
            for collection, encoder in encoders.items():
                await book.fill(collection, passages, encoder=encoder)
            for search, encoder in product(_SEARCHES, encoders):
                rankings[search, encoder] = await asking.retrieve(book, search, encoder)
                answers[search, encoder, which] = await asking.answer(book, search, encoder, which)
    compared = {
        f"{search} {encoder}": compare(rankings[search, "before"], run) for (search, encoder), run in rankings.items()
    }
    for (search, encoder, which), run in answers.items():
        compared[f"{search} {encoder}+{which}"] = compare(answers[search, "before", "before"], run)
    return compared


def sample(questions: Sequence[Question], limit: int) -> list[Question]:
    """A fixed random choice, in a fixed random order, so that the first of a larger one are the smaller one."""
    order = np.random.default_rng(0).permutation(len(questions))[:limit]
    return [questions[place] for place in order]


def table(compared: Mapping[str, Comparison]) -> Table:
    """Percentages; in brackets the paired difference to both halves before with its 95 % interval."""
    shown = Table("encoder + generator", *_METRICS)
    for name, comparison in compared.items():
        cells = []
        for metric in _METRICS:
            is_shown = metric in comparison.differences and ("+" in name) is (metric in ("exact_match", "f1"))
            cells.append(_cell(comparison, metric) if is_shown else "")
        shown.add_row(f"{name} (n={comparison.num_questions})", *cells)
    return shown


def _cell(comparison: Comparison, metric: str) -> str:
    difference = comparison.differences[metric]
    change = difference.change
    value, low, high, mean = (100 * each for each in (difference.after.value, change.low, change.high, change.value))
    return f"{value:.1f} [{mean:+.1f}: {low:+.1f}, {high:+.1f}]"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write ``comparison.json`` into the work folder."""
    parser = argparse.ArgumentParser(prog="python -m training.joint.measure", description=__doc__)
    parser.add_argument("--before-encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--after-encoder", required=True, help="folder of a checkpoint")
    parser.add_argument("--before-generator", default="default")
    parser.add_argument("--after-generator", required=True, help="folder of a checkpoint")
    add_data_flag(parser)
    parser.add_argument("--work", type=Path, required=True, help="keeps collections and answers; one for each pair")
    parser.add_argument("--limit", type=int, default=1500, help="questions to retrieve for: a fixed sample")
    parser.add_argument("--answers", type=int, default=1500, help="the first so many of them are answered")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    flags = parser.parse_args(arguments)
    flags.work.mkdir(parents=True, exist_ok=True)
    compared = asyncio.run(measure(flags))
    whole = {name: asdict(comparison) for name, comparison in compared.items()}
    (flags.work / "comparison.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
    Console(width=160).print(table(compared))


if __name__ == "__main__":
    main()
