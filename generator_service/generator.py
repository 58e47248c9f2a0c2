"""The generator: an answer from a question and its passages. Read this first.

A request is checked, its options are made whole, its passages become encoder rows, a decoding program is built over
them and run by the engine next to everyone else's; the token sequences that come back become texts with their evidence.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from generator_service.decoding.program import Decoded, EmittedToken, Program
from generator_service.decoding.with_evidence import WithEvidence
from generator_service.engine import Engine
from generator_service.limits import Limits, check_input, check_options, check_scoring
from generator_service.models.base import ModelSpec
from generator_service.models.loading import ABSTAINS_KEY, LoadedGenerator
from generator_service.options import Decoding, check_explanation, resolve
from generator_service.planning import PassagePrior, build_program
from generator_service.presenting import Deltas, Plan, Presenter
from generator_service.request import (
    DecodingModel,
    DecodingOptions,
    Delta,
    Generation,
    GenerationRequest,
    Passage,
    Scores,
    ScoringRequest,
    Timings,
)
from generator_service.rounds import EngineObserver
from generator_service.scheduler import Budget
from generator_service.scoring import ScoringPlan, plan_scoring
from generator_service.task_prompts import TaskPrompt
from generator_service.text import TextCodec
from serving.deadline import current_deadline
from serving.errors import FailedPrecondition, NotReady
from serving.logs import get_logger

_T = TypeVar("_T")

log = get_logger(__name__)

_RECENT_SECONDS = 5.0
"""A model that worked this recently needs no canary."""


class AnswerObserver(EngineObserver, Protocol):
    """Told what the engine does and what was answered."""

    def observe_answer(self, generation: Generation) -> None:
        """An answer was given."""
        ...


@dataclass(frozen=True, slots=True)
class _Ready:
    """What there is once the checkpoint is loaded."""

    loaded: LoadedGenerator
    spec: ModelSpec
    codec: TextCodec
    presenter: Presenter
    engine: Engine


class Generator:
    """Answers and scores; every method may be called from many tasks of one event loop at once, after `start`."""

    def __init__(
        self,
        load: Callable[[], LoadedGenerator],
        *,
        budget: Budget,
        limits: Limits,
        observer: AnswerObserver,
        encoder_cache_bytes: int = 0,
        draft_tokens: int = 0,
    ) -> None:
        """Takes what it needs; `load` is called by `start`, in a thread."""
        self._load = load
        self._budget = budget
        self._encoder_cache_bytes = encoder_cache_bytes
        self._draft_tokens = draft_tokens
        self._limits = limits
        self._observer = observer
        self._state: _Ready | None = None
        self._text_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="text")

    @property
    def spec(self) -> ModelSpec:
        """The loaded model."""
        return self._ready.spec

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._limits

    @property
    def prompt_format(self) -> str:
        """Name of the input format."""
        return self._ready.codec.prompt.format

    @property
    def tasks(self) -> Sequence[TaskPrompt]:
        """What the checkpoint was taught beyond plain questions."""
        return self._ready.loaded.tasks

    @property
    def _ready(self) -> _Ready:
        if self._state is None:
            raise NotReady("the generator is not loaded")
        return self._state

    async def start(self) -> None:
        """Loads the checkpoint, starts the engine and runs one question through everything.

        Raises:
            FileNotFoundError: There is no such checkpoint.
            ValueError: It cannot be served.
        """
        loaded = await asyncio.to_thread(self._load)
        codec = TextCodec(loaded.tokenizer, loaded.prompt)
        engine = Engine(loaded.model, self._budget, self._observer, encoder_cache_bytes=self._encoder_cache_bytes)
        engine.start()
        spec = replace(loaded.model.spec, name=loaded.name)
        self._state = _Ready(loaded, spec, codec, Presenter(codec, loaded.confidence), engine)
        log.info(
            "generator loaded",
            model=self.spec.name,
            architecture=self.spec.architecture,
            dtype=self.spec.dtype,
            num_parameters=self.spec.num_parameters,
            prompt=loaded.prompt.format,
            confidence="calibrated" if loaded.confidence.is_calibrated else "uncalibrated",
        )
        await self.check()

    async def close(self) -> None:
        """Stops the engine; whoever still waits gets NotReady."""
        if self._state is not None:
            await self._state.engine.stop()
        self._text_thread.shutdown(wait=False)

    async def check(self) -> None:
        """Runs one small question through everything, unless real ones have just succeeded.

        Raises:
            Exception: Whatever keeps the generator from working.
        """
        now = time.monotonic()
        if self._ready.engine.is_alive and now - self._ready.engine.last_success_at < _RECENT_SECONDS:
            return
        options = DecodingOptions(max_new_tokens=2, min_new_tokens=0)
        await self._run(GenerationRequest("ready?", [Passage("", "", "ready")], options), deadline_at=now + 60.0)

    def estimate_tokens(self, question: str, passages: Sequence[Passage], answers: Sequence[str] = ()) -> int:
        """About how many tokens a request costs, cheaply: four characters each, passages cut to the window.

        Every one of the answers to score is read once per passage.
        """
        window = self._ready.codec.prompt.max_input_tokens
        lengths = [len(question) + len(passage.title) + len(passage.text) for passage in passages]
        num_answer_tokens = sum(len(answer) // 4 + 1 for answer in answers)
        return sum(min(window, length // 4 + 3) + num_answer_tokens for length in lengths or [len(question)])

    async def generate(self, request: GenerationRequest) -> Generation:
        """Answers; RAG-Sequence thorough unless the request or a RAG checkpoint's class says otherwise.

        Raises:
            RagError: InvalidRequest, Unimplemented, Deadline, Overloaded or NotReady.
        """
        generation = await self._run(request, deadline_at=current_deadline().at)
        self._observer.observe_answer(generation)
        return generation

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Delta | Generation, None]:
        """Answers token by token, RAG-Token greedy unless the request says otherwise; the last item is the generation.

        Only greedy decoding of one sequence has tokens before the end; anything else gives the last item alone.

        Raises:
            RagError: InvalidRequest, Unimplemented, Deadline, Overloaded or NotReady.
        """
        plan = await self._plan(request, default_model=DecodingModel.RAG_TOKEN, default_num_beams=1)
        arrived: asyncio.Queue[Sequence[EmittedToken] | None] = asyncio.Queue()
        running = asyncio.ensure_future(
            self._ready.engine.run(plan.program, deadline_at=current_deadline().at, on_tokens=arrived.put_nowait)
        )
        running.add_done_callback(lambda _: arrived.put_nowait(None))
        try:
            deltas = Deltas(self._ready.codec, plan)
            while (tokens := await arrived.get()) is not None:
                delta = await self._in_text_thread(deltas.push, tokens)
                if delta is not None:
                    yield delta
            generation = await self._in_text_thread(self._ready.presenter.generation, plan, await running)
            self._observer.observe_answer(generation)
            last = deltas.finish(generation)
            if last is not None:
                yield last
            yield generation
        finally:
            running.cancel()

    async def score(self, request: ScoringRequest) -> Scores:
        """Scores given answers, under RAG-Sequence unless the request says otherwise, or the question, or no answer.

        An answer is scored with the tokens that the tokenizer writes it with, and end-of-sequence. That is the
        log-probability of an answer generated here if it was generated with those tokens and ended by itself; give its
        `raw_text`, since `text` may be in the surface of a passage.

        Raises:
            RagError: InvalidRequest, FailedPrecondition, Unimplemented, Deadline, Overloaded or NotReady.
        """
        accepted_at = time.monotonic()
        check_scoring(request, self._limits)
        if request.scores_no_answer and not self._ready.loaded.abstains:
            raise FailedPrecondition(
                f"the checkpoint {self.spec.name!r} was not taught to answer nothing where a passage "
                f'holds no answer; one that was says so in its config.json, "{ABSTAINS_KEY}": true',
                field="score_no_answer",
                reason="NEVER_ABSTAINS",
            )
        plan = await self._in_text_thread(self._plan_scoring, request)
        tokenize_seconds = time.monotonic() - accepted_at
        finished = await self._ready.engine.run(plan.program, deadline_at=current_deadline().at)
        answers = await self._in_text_thread(self._ready.presenter.answer_scores, finished.result, plan)
        return Scores(answers, Timings(tokenize_seconds, finished.timings, time.monotonic() - accepted_at))

    async def _run(self, request: GenerationRequest, *, deadline_at: float) -> Generation:
        model = self._ready.loaded.defaults.model or DecodingModel.RAG_SEQUENCE
        plan = await self._plan(request, default_model=model, default_num_beams=None)
        finished = await self._ready.engine.run(plan.program, deadline_at=deadline_at)
        return await self._in_text_thread(self._ready.presenter.generation, plan, finished)

    async def _plan(
        self, request: GenerationRequest, *, default_model: DecodingModel, default_num_beams: int | None
    ) -> Plan:
        accepted_at = time.monotonic()
        check_options(request.options, self._limits)
        decoding = resolve(
            request.options,
            self._ready.loaded.defaults,
            self._limits,
            max_target_tokens=self.spec.max_target_tokens,
            default_model=default_model,
            default_num_beams=default_num_beams,
        )
        check_explanation(request.explanation, decoding)
        check_input(request.question, request.passages, decoding.model, self._limits)
        prior = PassagePrior.of(request.passages, decoding.prune_prior_mass)
        program = await self._in_text_thread(self._program, request, decoding, prior)
        return Plan(request, decoding, prior, program, accepted_at, time.monotonic() - accepted_at)

    def _program(self, request: GenerationRequest, decoding: Decoding, prior: PassagePrior) -> Program[Decoded]:
        rows = self._ready.codec.rows(request.question, [request.passages[i] for i in prior.kept])
        codec, confidence = self._ready.codec, self._ready.loaded.confidence
        program = build_program(
            rows,
            prior,
            decoding,
            request.explanation,
            spec=self.spec,
            codec=codec,
            draft_tokens=self._draft_tokens,
        )
        if not confidence.is_calibrated:
            return program
        compares = confidence.compares_closed_book and prior.kept
        return WithEvidence(program, codec.rows(request.question, [])[0] if compares else None)

    def _plan_scoring(self, request: ScoringRequest) -> ScoringPlan:
        return plan_scoring(
            request,
            spec=self.spec,
            codec=self._ready.codec,
            limits=self._limits,
            max_slice_tokens=self._budget.max_scoring_tokens,
        )

    async def _in_text_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Tokenizers hold their thread for milliseconds; the event loop goes on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._text_thread, function, *arguments)
