"""Asks a gateway every question of a set and keeps what came back. Interruptible: start it again to go on."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evaluation.datasets import Question, Target, read_questions
from evaluation.results import Cited, Result, ResultFile, Run
from evaluation.retrieval import has_answer, matches_regex
from rag_client import Answer, AnswerOptions, AsyncRagClient, Citation, Passage, Retrieval, RetrievalOptions
from rag_client.errors import NotReady, Overloaded, RagError

MAX_TRIES = 20
MAX_CITED, MAX_CITED_CHARS = 10, 500  # Kept of an answer's passages, for people who look at what went wrong.
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


def evaluate(settings: EvaluationSettings, console: Console | None = None) -> Run:
    """Runs what is not done yet, with a progress bar; gives the results of all of it.

    Raises:
        NotReady: The gateway or a service behind it is gone; the results so far are kept.
        NotFound: There is no such collection.
        ValueError: Questions or results cannot be read, or the results are of other questions, settings or systems.
        KeyboardInterrupt: The results so far are kept.
    """
    return asyncio.run(_evaluate(settings, console or Console(stderr=True)))


async def _evaluate(settings: EvaluationSettings, console: Console) -> Run:
    questions = read_questions(settings.questions)[: settings.limit]
    async with AsyncRagClient(settings.target, timeout=settings.timeout) as rag:
        identity = {
            "questions": settings.questions.name,
            "options": _plain(settings.options),
            "depth": settings.depth,
            "system": await _system(rag, settings.options.get("collection", "default")),
        }
        with ResultFile(settings.results, identity) as file, _progress(console) as progress:
            _refuse_other_questions(questions, file.results, settings.results)
            pending = [question for question in questions if question.id not in file.results]
            bar = progress.add_task("questions", total=len(questions), completed=len(questions) - len(pending))

            def done(result: Result) -> None:
                file.add(result)
                progress.advance(bar)

            await _ask_all(rag, pending, settings, done)
        return Run(
            identity | {"concurrency": settings.concurrency}, [file.results[question.id] for question in questions]
        )


async def _system(rag: AsyncRagClient, name: str) -> dict[str, Any]:
    """What answers, as JSON can hold it: results of another model or other passages are not to be continued."""
    info, collection = await rag.info(), await rag.describe_collection(name)
    generator = info.generator.generator if info.generator else None
    return {
        "generator": generator.name if generator else "",
        "generator_digest": generator.digest if generator else "",
        "encoder": collection.encoder.name,
        "encoder_digest": collection.encoder.digest,
        "num_passages": collection.num_passages,
        "sequence": collection.sequence,
        "index_generation": collection.index_generation,
        "temperature": collection.settings.temperature,
        "fusion": repr(collection.settings.fusion),
    }


def _refuse_other_questions(questions: Sequence[Question], results: Mapping[str, Result], path: Path) -> None:
    for question in questions:
        if question.id in results and not results[question.id].is_of(question):
            raise ValueError(
                f"{path} holds a result of another question {question.id!r}: choose another file, or delete it"
            )


def _plain(options: AnswerOptions) -> dict[str, Any]:
    """The options as JSON can hold them; filters and weights by their representation."""
    return {
        name: value if isinstance(value, str | int | float | list | None) else repr(value)
        for name, value in options.items()
    }


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


async def _ask_all(
    rag: AsyncRagClient, questions: Sequence[Question], settings: EvaluationSettings, done: Callable[[Result], None]
) -> None:
    waiting = iter(questions)

    async def work() -> None:
        for question in waiting:
            done(await ask(rag, question, settings))

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(settings.concurrency):
                workers.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


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
        return Result(
            question.id,
            question.text,
            question.target,
            question.golds,
            question.tags,
            question.history,
            error=message,
        )


async def _ask_once(rag: AsyncRagClient, question: Question, settings: EvaluationSettings) -> Result:
    retrieval_names = RetrievalOptions.__annotations__.keys() - {"top_k"}
    retrieval_options: Any = {name: value for name, value in settings.options.items() if name in retrieval_names}
    options = settings.options.copy()
    if question.history:
        options["history"] = question.history
    started = time.perf_counter()  # The answer comes first: nothing has made it faster.
    answer = await rag.answer(question.text, **options)
    latency_seconds = time.perf_counter() - started
    found = await rag.retrieve(answer.rewritten_question or question.text, top_k=settings.depth, **retrieval_options)
    return to_result(question, answer, found, latency_seconds=latency_seconds)


def to_result(question: Question, answer: Answer, found: Retrieval, *, latency_seconds: float) -> Result:
    """What is kept of an answer and of a ranking."""
    passages = [each.passage for each in found.passages]
    has_strings = question.target in (Target.STRINGS, Target.REGEX)
    return Result(
        id=question.id,
        question=question.text,
        target=question.target,
        golds=question.golds,
        tags=question.tags,
        history=question.history,
        text=answer.text,
        is_answered=answer.is_answered,
        finish_reason=str(answer.finish_reason),
        confidence=answer.confidence,
        from_cache=answer.from_cache,
        cited=tuple(_cited(question, citation) for citation in answer.citations[:MAX_CITED]),
        gold_flags=question.gold.flags(passages) if question.gold else None,
        num_gold=question.gold.num_passages if question.gold else 0,
        answer_flags=[_holds_answer(question, passage) for passage in passages] if has_strings else None,
        latency_seconds=latency_seconds,
        stage_seconds={timing.stage: timing.duration_seconds for timing in answer.timings},
        provenance=asdict(answer.provenance),
    )


def _cited(question: Question, citation: Citation) -> Cited:
    passage = citation.passage
    return Cited(
        id=passage.id,
        title=passage.title,
        source=passage.source,
        text=passage.text[:MAX_CITED_CHARS],
        prior=citation.prior,
        posterior=citation.posterior,
        is_gold=question.gold is not None and question.gold.flags([passage])[0],
        has_answer=_holds_answer(question, passage),
    )


def _holds_answer(question: Question, passage: Passage) -> bool:
    if question.target is Target.REGEX:
        return matches_regex(passage.text, question.answer_regex)
    return has_answer(passage.text, question.answers)
