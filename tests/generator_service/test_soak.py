"""Under random modes, deadlines and departures every request is answered once, nothing leaks, and memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from generator_service.decoding.sampling import Sampling
from generator_service.entry import Entry
from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.request import DecodingModel, DecodingOptions, GenerationRequest, Passage, ScoringRequest
from generator_service.scheduler import Budget
from serving.deadline import Deadline, enter_request
from serving.errors import Deadline as TooLate
from serving.errors import Overloaded

CACHE_BYTES = 64 * 1024
BUDGET = Budget(max_running_requests=8, max_decoder_rows=60, max_prefill_tokens=300, max_scoring_tokens=40)
TOKEN, SEQUENCE = DecodingModel.RAG_TOKEN, DecodingModel.RAG_SEQUENCE
MODES = (
    DecodingOptions(TOKEN),
    DecodingOptions(TOKEN, num_beams=3, num_return_sequences=2),
    DecodingOptions(TOKEN, sampling=Sampling(seed=1), num_return_sequences=2),
    DecodingOptions(SEQUENCE, num_beams=2),
    DecodingOptions(SEQUENCE, num_beams=3, is_fast=True),
    DecodingOptions(DecodingModel.FUSION_IN_DECODER, num_beams=2),
    DecodingOptions(DecodingModel.CLOSED_BOOK),
)


def ask(generator: Generator, words: list[str], source: random.Random) -> Callable[[], Any]:
    """A random request: generated, streamed or scored."""

    def text(most: int) -> str:
        return " ".join(source.choices(words, k=source.randint(1, most)))

    passages = [Passage("", "", text(12), source.gauss(0, 1)) for _ in range(source.randint(1, 5))]
    question, kind = source.choice(("who?", "where is the river?", text(5))), source.random()
    if kind < 0.15:
        request = ScoringRequest(question, passages, [text(6) for _ in range(source.randint(1, 8))])
        return lambda: generator.score(request)
    options = replace(source.choice(MODES), max_new_tokens=source.randint(1, 12), min_new_tokens=0)
    if options.model is DecodingModel.CLOSED_BOOK:
        passages = []
    asked = GenerationRequest(question, passages, options)
    return lambda: drained(generator.stream(asked)) if kind < 0.4 else generator.generate(asked)


async def drained(stream: Any) -> Any:
    return [event async for event in stream][-1]


async def crowd(generator: Generator, words: list[str], source: random.Random, count: int) -> Counter[str]:
    """Many requests at once, some of which are given up or in a hurry; how they ended."""
    outcomes: Counter[str] = Counter()

    async def one(run: Callable[[], Any], seconds: float | None) -> None:
        enter_request(Deadline.never() if seconds is None else Deadline.after(seconds), "")
        try:
            await run()
            outcomes["answered"] += 1
        except TooLate:
            outcomes["late"] += 1
        except Overloaded:
            outcomes["refused"] += 1
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1
            raise

    tasks = []
    for _ in range(count):
        seconds = source.uniform(0.0, 0.3) if source.random() < 0.3 else None
        tasks.append(asyncio.create_task(one(ask(generator, words, source), seconds)))
        if source.random() < 0.7:
            await asyncio.sleep(0)
        if source.random() < 0.2:
            source.choice(tasks[-20:]).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    outcomes["cancelled"] += sum(task.cancelled() for task in tasks) - outcomes["cancelled"]  # some before they began
    assert [task.exception() for task in tasks if not task.cancelled() and task.exception()] == []
    return outcomes


def tensor_bytes() -> int:
    """Memory of every tensor that is alive, packed weights left out."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.layout is torch.strided]
    storages = [each.untyped_storage() for each in tensors]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def test_a_thousand_requests_are_answered_once_each_and_leave_nothing_behind(
    tiny: Any, tiny_lean: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: Counter[tuple[int, float]] = Counter()
    deliver = Entry.deliver

    def counted(entry: Entry, outcome: Any) -> None:
        delivered[id(entry.future), entry.accepted_at] += 1
        deliver(entry, outcome)

    monkeypatch.setattr(Entry, "deliver", counted)
    metrics, source = generator_metrics(), random.Random(0)
    model = tiny.loaded(tiny_lean)
    generator = Generator(
        lambda: model, budget=BUDGET, limits=Limits(), observer=metrics, encoder_cache_bytes=CACHE_BYTES
    )
    await generator.start()
    outcomes: Counter[str] = Counter()
    tensors, resident = [], []
    for third in (333, 333, 334):
        outcomes += await crowd(generator, sorted(tiny.words), source, third)
        async with asyncio.timeout(20):
            while metrics.running._value.get() or metrics.waiting._value.get():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert metrics.decoder_rows._value.get() == 0
        assert metrics.cache_bytes._value.get() <= CACHE_BYTES
        tensors.append(tensor_bytes())
        resident.append(resident_bytes())
    await generator.close()
    assert outcomes.total() == 1000
    assert min(outcomes["answered"], outcomes["late"], outcomes["cancelled"]) > 0
    assert set(delivered.values()) == {1}
    assert abs(tensors[2] - tensors[0]) <= CACHE_BYTES
    assert resident[2] - resident[0] < 16 * 1024 * 1024
