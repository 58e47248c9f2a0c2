"""Two generators side by side through our own engine: answers to gold-passage questions, size, and CPU time.

Quality is that of the number format they are served in.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation.answers import exact_match, f1
from generator_service.config import GeneratorConfig
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.models.loading import LoadedGenerator, load_generator, locate
from generator_service.request import GenerationRequest, Passage
from generator_service.scheduler import Budget
from serving.memory import keep_freed_memory
from training.distillation.side_by_side import Line, Pairs
from training.generator.answering import Asked
from training.generator.measure import read_questions
from training.retriever.data import Corpus, Source, read_pool
from training.retriever.mining import lexical_index

_SET = "squad-dev"
_NUM_PASSAGES = 5
_ROUNDS = 3
_DTYPES = ("auto", "float32", "bfloat16", "int8")


def compare_generators(names: Sequence[str], data: Path, *, limit: int, num_timed: int) -> list[Line]:
    """What there is to say of the teacher and the student, in this order in ``names``."""
    config = GeneratorConfig()
    folders = [locate(name, config.cache_dir.expanduser()) for name in names]
    keep_freed_memory()  # As the service does.
    quality = asyncio.run(_quality(folders, data, limit))
    return [*quality, *_size(folders), *asyncio.run(_speed(folders, data, num_timed))]


async def _quality(folders: Sequence[Path], data: Path, limit: int) -> list[Line]:
    questions = read_questions(data, _SET, limit=limit)
    answers = [await _answers(folder, [question.asked for question in questions]) for folder in folders]
    lines = []
    for name, score in (("exact match", exact_match), ("F1", f1)):
        values = [
            [100 * score(answer, question.answers) for answer, question in zip(given, questions, strict=True)]
            for given in answers
        ]
        lines.append(Line.paired(f"{name}, gold passage, {len(questions)} questions", "%", values))
    return lines


async def _answers(folder: Path, asked: Sequence[Asked]) -> list[str]:
    """What it answers as it is served, each from its gold passage alone."""
    requests = [GenerationRequest(each.question, [Passage("", each.title, each.text)]) for each in asked]
    async with AsyncExitStack() as stack:
        generator = await _started(_loaded(folder, "auto"), stack)
        return [(await generator.generate(request)).best.text for request in requests]


def _size(folders: Sequence[Path]) -> list[Line]:
    loaded = [_loaded(folder, "float32") for folder in folders]
    num_bytes = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in folders]
    return [
        Line.of("parameters", "M", (each.model.spec.num_parameters / 1e6 for each in loaded)),
        Line.of("weights on disk", "MB", (each / 1e6 for each in num_bytes)),
    ]


async def _speed(folders: Sequence[Path], data: Path, num_questions: int) -> list[Line]:
    """Process CPU time of an answer from five passages: teacher and student in turns, so that neighbours slow both."""
    requests = _requests(data, num_questions)
    lines = []
    for dtype in _DTYPES:
        loaded = [_loaded(folder, dtype) for folder in folders]
        seconds: Pairs = [[], []]
        async with AsyncExitStack() as stack:
            # The confidence model costs some, too: the student gets the teacher's.
            generators = [await _started(replace(each, confidence=loaded[0].confidence), stack) for each in loaded]
            for number in range(_ROUNDS):
                for request in requests:
                    for generator, taken in zip(generators, seconds, strict=True):
                        started = time.process_time()
                        await generator.generate(request)
                        if number:  # The first round is for caches and kernels.
                            taken.append(1000 * (time.process_time() - started))
        means = (float(np.mean(taken)) for taken in seconds)
        served = "as served" if dtype == "auto" else dtype
        lines.append(Line.of(f"CPU time of an answer, {_NUM_PASSAGES} passages, {served}", "ms", means))
    return lines


async def _started(loaded: LoadedGenerator, stack: AsyncExitStack) -> Generator:
    config = GeneratorConfig()
    generator = Generator(
        lambda: loaded,
        budget=Budget(**config.engine.model_dump()),
        limits=Limits(**config.limits.model_dump()),
        observer=generator_metrics(),
        draft_tokens=config.draft_tokens if config.speculates else 0,
    )
    await generator.start()
    stack.push_async_callback(generator.close)
    return generator


def _loaded(folder: Path, dtype: str) -> LoadedGenerator:
    cache = GeneratorConfig().cache_dir.expanduser()
    return load_generator(str(folder), dtype=dtype, device="cpu", cache_dir=cache)


def _requests(data: Path, count: int) -> list[GenerationRequest]:
    """Questions with the passages that BM25 finds among all."""
    folder = data / "squad-open"
    corpus = read_pool(Source(folder / "passages.jsonl.gz", folder / "questions_dev.jsonl.gz"))
    chosen = np.random.default_rng(0).permutation(len(corpus.held_out))[:count]
    with lexical_index(corpus.passages) as index:
        return [
            GenerationRequest(question.text, _found(corpus, index.search(question.text, _NUM_PASSAGES)[0].tolist()))
            for question in (corpus.held_out[place] for place in chosen)
        ]


def _found(corpus: Corpus, places: Sequence[int]) -> list[Passage]:
    found = [corpus.passages[place] for place in places]
    return [Passage(passage.id, passage.title, passage.text) for passage in found]
