"""Asks a running gateway every question of a set and keeps what came back. Interruptible: start it again to go on."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evaluation.answers import exact_match, f1
from evaluation.datasets import Question, read_questions
from evaluation.report import Report, make_report
from evaluation.results import Result, ResultFile
from evaluation.retrieval import has_answer, matches_regex
from rag_client import Answer, AnswerOptions, AsyncRagClient, Retrieval, RetrievalOptions
from rag_client.errors import NotReady, Overloaded, RagError

MAX_TRIES = 20
_DEFAULT_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is measured.

    Attributes:
        target: The gateway's address.
        questions: A file of questions, see `evaluation.datasets`.
        results: The file that results are kept in and continued from.
        options: Of each answer, e.g. {"collection": "squad", "top_k": 5}.
        depth: Passages of the second retrieval, for recall@k up to this k.
        concurrency: Questions under way at once.
        limit: Only the first so many questions; None for all.
        timeout: Of a call, in seconds.
    """

    questions: Path
    results: Path
    target: str = "localhost:50050"
    options: AnswerOptions = field(default_factory=AnswerOptions)
    depth: int = 20
    concurrency: int = 4
    limit: int | None = None
    timeout: float = 120.0


def evaluate(settings: EvaluationSettings, console: Console | None = None) -> Report:
    """Runs what is not done yet, with a progress bar, and reports on all of it.

    Raises:
        NotReady: The gateway or a service behind it is gone; the results so far are kept.
        ValueError: Questions or results cannot be read, or the results are of other settings.
        KeyboardInterrupt: The results so far are kept.
    """
    questions = read_questions(settings.questions)[: settings.limit]
    identity = {"questions": settings.questions.name, "options": _plain(settings.options), "depth": settings.depth}
    with ResultFile(settings.results, identity) as file:
        pending = [question for question in questions if question.id not in file.results]
        with _progress(console) as progress:
            bar = progress.add_task("questions", total=len(questions), completed=len(questions) - len(pending))

            def done(result: Result) -> None:
                file.add(result)
                progress.advance(bar)

            asyncio.run(_ask_all(pending, settings, done))
        results = [file.results[question.id] for question in questions]
    return make_report(results, settings=identity | {"concurrency": settings.concurrency})


def _plain(options: AnswerOptions) -> dict[str, Any]:
    """The options as JSON can hold them; filters and weights by their representation."""
    return {
        name: value if isinstance(value, str | int | float | list | None) else repr(value)
        for name, value in options.items()
    }


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console or Console(stderr=True), transient=True)


async def _ask_all(questions: Sequence[Question], settings: EvaluationSettings, done: Any) -> None:
    waiting = iter(questions)
    async with AsyncRagClient(settings.target, timeout=settings.timeout) as rag:
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(settings.concurrency):
                    workers.create_task(_work(rag, waiting, settings, done))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None


async def _work(rag: AsyncRagClient, waiting: Iterator[Question], settings: EvaluationSettings, done: Any) -> None:
    for question in waiting:
        done(await ask(rag, question, settings))


async def ask(rag: AsyncRagClient, question: Question, settings: EvaluationSettings) -> Result:
    """Asks one question. A refusal is a result; a service that is gone is not.

    Raises:
        NotReady: The gateway or a service behind it is gone.
    """
    try:
        for _ in range(MAX_TRIES):
            try:
                return await _ask_once(rag, question, settings)
            except Overloaded as error:
                overloaded = error
                await asyncio.sleep(error.retry_after_seconds or _DEFAULT_RETRY_SECONDS)
        raise overloaded
    except NotReady:
        raise
    except RagError as error:
        message = f"{type(error).__name__}: {error.message}"
        return Result(question.id, question.kind, question.is_answerable, error=message)


async def _ask_once(rag: AsyncRagClient, question: Question, settings: EvaluationSettings) -> Result:
    retrieval_names = RetrievalOptions.__annotations__.keys() - {"top_k"}
    retrieval_options: Any = {name: value for name, value in settings.options.items() if name in retrieval_names}
    found = await rag.retrieve(question.text, top_k=settings.depth, **retrieval_options)
    started = time.perf_counter()
    answer = await rag.answer(question.text, **settings.options)
    return judge(question, answer, found, latency_seconds=time.perf_counter() - started)


def judge(question: Question, answer: Answer, found: Retrieval, *, latency_seconds: float) -> Result:
    """What an answer and a ranking are worth."""
    passages = [each.passage for each in found.passages]
    if question.answer_regex:
        answer_flags = [matches_regex(passage.text, question.answer_regex) for passage in passages]
        em = f1_score = float(answer.is_answered and matches_regex(answer.text, question.answer_regex))
    else:
        answer_flags = [has_answer(passage.text, question.answers) for passage in passages]
        em, f1_score = exact_match(answer.text, question.answers), f1(answer.text, question.answers)
    return Result(
        id=question.id,
        kind=question.kind,
        is_answerable=question.is_answerable,
        text=answer.text,
        is_answered=answer.is_answered,
        finish_reason=str(answer.finish_reason),
        confidence=answer.confidence,
        exact_match=em,
        f1=f1_score,
        gold_flags=question.gold.flags(passages) if question.gold else None,
        num_gold=question.gold.num_passages if question.gold else 0,
        answer_flags=answer_flags if question.is_answerable else None,
        latency_seconds=latency_seconds,
        stage_seconds={timing.stage: timing.duration_seconds for timing in answer.timings},
        provenance=asdict(answer.provenance),
    )
