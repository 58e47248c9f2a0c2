"""Our engine on the same checkpoint and inputs, driven as the service drives it: programs from many callers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.generator.peer import Ids
from benchmarks.generator.workload import Question, Workload
from generator_service.decoding.program import Decoded, Program
from generator_service.engine import Engine
from generator_service.limits import Limits
from generator_service.models import lean
from generator_service.models.defaults import GenerationDefaults
from generator_service.options import Decoding, resolve
from generator_service.planning import PassagePrior, build_program
from generator_service.request import DecodingModel, DecodingOptions, Explanation, Passage
from generator_service.scheduler import Budget
from serving.linear import Backend

_CACHE_BYTES = 1 << 30


class _Silent:
    """An observer that nobody asks."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class _NoWords:
    """A codec for requests that name no words: random weights have no tokenizer."""

    def word_ids(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        assert not words
        return ()


class Ours:
    """A model with its engine. Close it: its thread holds the weights."""

    def __init__(
        self,
        path: Path,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        backend: Backend | None = None,
        is_cached: bool = False,
    ) -> None:
        self.model = lean.load(path, dtype=dtype, device=device, backend=backend)
        cache_bytes = _CACHE_BYTES if is_cached else 0
        self._engine = Engine(self.model, Budget(), _Silent(), encoder_cache_bytes=cache_bytes)
        self._engine.start()
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """Stops the engine."""
        self._runner.run(self._engine.stop())
        self._runner.close()

    def answer(self, workload: Workload, asked: Sequence[Question]) -> Ids:
        """Answers all questions at once, each as a caller of its own."""
        return self._runner.run(self._answer(workload, asked))

    async def _answer(self, workload: Workload, asked: Sequence[Question]) -> Ids:
        programs = [self._program(workload, question) for question in asked]
        finished = await asyncio.gather(*(self._engine.run(each, deadline_at=math.inf) for each in programs))
        return [each.result.hypotheses[0].token_ids for each in finished]

    def _program(self, workload: Workload, question: Question) -> Program[Decoded]:
        passages = [Passage(str(number), "", "", log_prior=score) for number, score in enumerate(question.scores)]
        codec: Any = _NoWords()
        return build_program(
            question.rows,
            PassagePrior.of(passages, 0.0),
            decoding(workload),
            Explanation(),
            spec=self.model.spec,
            codec=codec,
        )


def decoding(workload: Workload) -> Decoding:
    """The options that make both sides decode the same."""
    options = DecodingOptions(
        model=DecodingModel.RAG_TOKEN if workload.kind == "token" else DecodingModel.RAG_SEQUENCE,
        num_beams=workload.num_beams,
        max_new_tokens=workload.num_new_tokens,
        min_new_tokens=workload.num_new_tokens,
    )
    return resolve(
        options,
        GenerationDefaults(),
        Limits(),
        max_target_tokens=workload.num_new_tokens,
        default_model=DecodingModel.RAG_SEQUENCE,
    )
