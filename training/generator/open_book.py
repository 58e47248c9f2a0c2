"""Asks a generator the way the system does, in this process: hybrid retrieval, then RAG-Sequence over what was found.

What decoding knows of each answer is taken down as the service's confidence model sees it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from evaluation.answers import exact_match
from generator_service.confidence import FEATURES, Confidence, Evidence
from generator_service.config import GeneratorConfig
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.models.loading import LoadedGenerator, load_generator
from generator_service.request import GenerationRequest, Passage
from generator_service.scheduler import Budget
from retriever_service.__main__ import build_retriever
from retriever_service.collection import CollectionRequest
from retriever_service.collection import Passage as StoredPassage
from retriever_service.config import RetrieverConfig
from retriever_service.filters import In, Not
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.retriever import Retriever
from retriever_service.upserting import UpsertItem, UpsertMessage
from serving.errors import RagError
from training.generator.calibration_cases import Case, KnownPassage

_BATCH = 64
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answered:
    """An answered case, with the value of every known feature."""

    id: str
    kind: str
    is_right: bool
    features: dict[str, float]

    @property
    def question(self) -> str:
        """Which question it is a variant of."""
        return self.id.partition("/")[0]


def answer_all(
    cases: Sequence[Case],
    collections: Mapping[str, Sequence[KnownPassage]],
    work: Path,
    *,
    checkpoint: str = "default",
    num_threads: int = 1,
) -> list[Answered]:
    """Asks what ``work/answers.jsonl`` does not have yet; gives all answers, in the cases' order.

    Args:
        cases: What to ask; one whose retrieval is empty has no answer.
        collections: The knowledge bases by name.
        work: Folder that keeps knowledge bases and answers, so that an interrupted run goes on.
        checkpoint: "default" or a directory.
        num_threads: Cores to use.
    """
    path = work / "answers.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    done = {answered.id: answered for answered in _read(path)}

    async def ask(waiting: Sequence[Case]) -> None:
        async with OpenBook.opened(checkpoint, work / "collections", num_threads=num_threads) as book:
            for name, passages in _shown(collections.items(), "knowledge bases"):
                await book.fill(name, passages)
            with path.open("a", encoding="utf-8") as file:
                for case in _shown(waiting, "questions"):
                    answered = await book.ask(case)
                    if answered is not None:
                        done[case.id] = answered
                        file.write(json.dumps(asdict(answered)) + "\n")
                        file.flush()

    waiting = [case for case in cases if case.id not in done]
    if waiting:
        asyncio.run(ask(waiting))
    return [done[case.id] for case in cases if case.id in done]


def _read(path: Path) -> list[Answered]:
    """The answers so far; a line cut short by an interruption is dropped from the file."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        path.write_bytes(b"".join(lines[:-1]))
        lines = lines[:-1]
    return [Answered(**json.loads(line)) for line in lines]


def _shown(items: Collection[_T], name: str) -> Iterable[_T]:
    return track(items, name, total=len(items), console=Console(stderr=True))


@dataclass(frozen=True, slots=True)
class _Witness(Confidence):
    """Stands in for a checkpoint's confidence model, wants everything and takes it down."""

    seen: list[Evidence] = field(default_factory=list)

    def __call__(self, evidence: Evidence) -> float:
        """No opinion."""
        self.seen.append(evidence)
        return 0.0


class OpenBook:
    """Knowledge bases and a generator. For one question at a time."""

    def __init__(self, checkpoint: str, retriever: Retriever, generator: Generator, witness: _Witness) -> None:
        self.checkpoint, self.retriever, self.generator, self._witness = checkpoint, retriever, generator, witness

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, checkpoint: str, folder: Path, *, num_threads: int, encoders: Sequence[str] = ()
    ) -> AsyncIterator["OpenBook"]:
        """Loads everything.

        Args:
            checkpoint: "default" or a directory.
            folder: Keeps the knowledge bases.
            num_threads: Of the encoders, and of the generator.
            encoders: That collections may name, beside the default one.
        """
        config = GeneratorConfig(num_threads=num_threads, model=checkpoint)
        witness = _Witness(tuple(FEATURES), (0.0,) * len(FEATURES))

        def load() -> LoadedGenerator:
            loaded = load_generator(
                checkpoint, dtype=config.dtype, device="cpu", cache_dir=config.cache_dir.expanduser()
            )
            return replace(loaded, confidence=witness)

        retriever = build_retriever(
            RetrieverConfig(data_dir=folder, encoders=tuple(encoders), num_encoder_threads=num_threads)
        )
        budget, limits = Budget(**config.engine.model_dump()), Limits(**config.limits.model_dump())
        generator = Generator(load, budget=budget, limits=limits, observer=generator_metrics())
        await retriever.start()
        try:
            await generator.start()
            yield cls(checkpoint, retriever, generator, witness)
        finally:
            await generator.close()
            await retriever.close()

    async def fill(self, collection: str, passages: Sequence[KnownPassage], *, encoder: str = "") -> None:
        """Puts passages into a knowledge base, made with this encoder; what is there already is not encoded."""
        await self.retriever.library.create(CollectionRequest(collection, encoder=encoder))

        async def messages() -> AsyncIterator[UpsertMessage]:
            for start in range(0, len(passages), _BATCH):
                batch = [
                    UpsertItem(StoredPassage(each.id, each.title, each.text, source=each.title))
                    for each in passages[start : start + _BATCH]
                ]
                yield UpsertMessage(collection, batch)

        result = await self.retriever.upsert(messages())
        for item in result.items:
            if item.error is not None:
                raise item.error

    async def ask(self, case: Case, *, top_k: int = 5) -> Answered | None:
        """The answer to a case; None where nothing is found.

        Raises:
            RagError: The question cannot be asked.
        """
        hidden = Not(In("id", case.hidden)) if case.hidden else None
        options = RetrievalOptions(case.collection, top_k=top_k, filter=hidden)
        (hits,) = (await self.retriever.retrieve([QueryInput(case.question)], options)).results
        if isinstance(hits, RagError):
            raise hits
        if not hits:
            return None
        passages = [
            Passage(hit.passage.id, hit.passage.title, hit.passage.text, hit.log_prior, hit.score) for hit in hits
        ]
        self._witness.seen.clear()
        generation = await self.generator.generate(GenerationRequest(case.question, passages))
        evidence = self._witness.seen[0]
        is_right = exact_match(generation.best.text, case.answers) == 1.0
        return Answered(case.id, case.kind, is_right, {name: value(evidence) for name, value in FEATURES.items()})
