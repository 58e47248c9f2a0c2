import asyncio
import math
from dataclasses import replace

import pytest

from gateway.answers import Answer, Made
from gateway.pipeline import Pipeline, cite
from gateway.run import Budget
from gateway.stages import Delta, Generation, Question, Retrieval
from serving.admission import Admission
from serving.errors import Overloaded, RagError

FOUND = Retrieval(passages=("a", "b", "c"), log_priors=[math.log(0.5), math.log(0.25), math.log(0.25)])


def decoded(*posteriors, confidence=0.5):
    return Generation(
        message="m", finish_reason="length", model="rag_token", confidence=confidence, posteriors=posteriors
    )


class Stages:
    """A retriever, a generator and an observer in one."""

    def __init__(self, *parts, found=FOUND):
        self.parts, self.found = parts, found
        self.answers, self.first_tokens = [], []
        self.gate = None

    async def retrieve(self, question, queries, *, timeout):
        if self.gate is not None:
            await self.gate.wait()
        return [self.found]

    async def generate(self, question, retrieval, *, timeout):
        return self.parts[-1]

    async def stream(self, question, retrieval, *, timeout):
        for part in self.parts:
            yield part

    def answered(self, answer):
        self.answers.append(answer)

    def first_token(self, seconds):
        self.first_tokens.append(seconds)

    def pipeline(self, *, max_items=8, **options):
        admission = Admission(max_items, max_tokens=1)
        return Pipeline(self, self, observer=self, admission=admission, budget=Budget(), new_id=lambda: "id", **options)


QUESTION = Question("q", options=None)
STREAMED = Question("q", options=None, streams_tokens=True)


def test_citations_are_ordered_by_posterior_and_then_by_rank():
    citations = cite(FOUND, (0.25, 0.5, 0.25))
    assert [(citation.index, citation.prior) for citation in citations] == [(1, 0.25), (0, 0.5), (2, 0.25)]


async def test_a_posterior_for_each_passage_is_demanded():
    with pytest.raises(RagError, match="2 posteriors for 3 passages"):
        await Stages(decoded(0.5, 0.5)).pipeline().answer(QUESTION)


async def test_a_stream_that_ends_without_a_generation_is_an_error_and_no_answer():
    stages = Stages(Delta("x"))
    with pytest.raises(RagError, match="without a generation"):
        [event async for event in stages.pipeline().stream(STREAMED)]
    assert stages.answers == []


async def test_the_first_token_is_timed_once():
    stages = Stages(Delta("x"), Delta("y"), decoded(1.0, 0.0, 0.0))
    events = [event async for event in stages.pipeline().stream(STREAMED)]
    assert len(stages.first_tokens) == 1
    assert isinstance(events[-1], Answer)
    assert stages.answers == [events[-1]]


@pytest.mark.parametrize(
    ("advised", "configured", "asked", "finish_reason"),
    [
        (0.0, 0.0, None, "length"),
        (0.0, 0.6, None, "abstained"),
        (0.0, 0.6, 0.0, "length"),
        (0.0, 0.0, 0.6, "abstained"),
        (0.6, None, None, "abstained"),
        (0.4, None, None, "length"),
        (0.6, 0.0, None, "length"),
        (0.6, None, 0.0, "length"),
    ],
)
async def test_the_questions_threshold_goes_before_the_gateways_and_that_before_the_generators(
    advised, configured, asked, finish_reason
):
    question = Question("q", options=None, min_confidence=asked)
    generation = replace(decoded(1.0, 0.0, 0.0), min_confidence=advised)
    answer = await Stages(generation).pipeline(min_confidence=configured).answer(question)
    assert answer.finish_reason == finish_reason


async def test_questions_beyond_the_room_are_refused_and_room_is_given_back():
    stages = Stages(decoded(1.0, 0.0, 0.0))
    stages.gate = asyncio.Event()
    pipeline = stages.pipeline(max_items=1)
    first = asyncio.create_task(pipeline.answer(QUESTION))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await pipeline.answer(QUESTION)
    assert caught.value.retry_after_seconds > 0
    stages.gate.set()
    await first
    assert (await pipeline.answer(QUESTION)).answer_id == "id"


async def test_a_cancelled_question_gives_its_room_back():
    stages = Stages(decoded(1.0, 0.0, 0.0))
    stages.gate = asyncio.Event()
    pipeline = stages.pipeline(max_items=1)
    first = asyncio.create_task(pipeline.answer(QUESTION))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    stages.gate.set()
    assert (await pipeline.answer(QUESTION)).has_text


class Remembers:
    """A cache that knows the answer to everything."""

    def __init__(self):
        self.timeouts = []

    async def recall(self, question, *, timeout):
        self.timeouts.append(timeout)
        return Made(FOUND, decoded(1.0, 0.0, 0.0), from_cache=True)


async def test_a_cached_answer_takes_room_and_is_looked_up_under_the_deadline():
    stages, cache, room = Stages(), Remembers(), Admission(1, max_tokens=1)
    pipeline = Pipeline(stages, stages, observer=stages, admission=room, budget=Budget(20.0), cache=cache)
    with room.admit(), pytest.raises(Overloaded):
        await pipeline.answer(QUESTION)
    assert cache.timeouts == []
    assert (await pipeline.answer(QUESTION)).made.from_cache
    assert 0 < cache.timeouts[0] < 20.0
