"""Every metric of the generator moves when what it measures happens."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.models import lean
from generator_service.request import DecodingModel, DecodingOptions, GenerationRequest, Passage, ScoringRequest
from generator_service.rounds import Rounds
from generator_service.scheduler import Budget
from serving.attention import PaddedAttention
from serving.errors import Deadline, Overloaded

PASSAGES = [Passage("", "", "paris is the capital of france"), Passage("", "", "it has 2 airports")]
ANSWER = GenerationRequest("what is it?", PASSAGES, DecodingOptions(DecodingModel.RAG_TOKEN, max_new_tokens=4))


def exported() -> dict[str, float]:
    """Every sample of the generator, by name and labels."""
    lines = generate_latest(REGISTRY).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if re.match(r"rag_gen", line))}


async def test_every_metric_moves(tiny: Any, tiny_lean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "packed_attention", PaddedAttention)
    metrics = generator_metrics()
    states: list[tuple[int, int, int]] = []
    plain_state = type(metrics).on_state

    def on_state(self: Any, **numbers: int) -> None:
        states.append(tuple(numbers.values()))  # type: ignore[arg-type]
        plain_state(self, **numbers)

    monkeypatch.setattr(type(metrics), "on_state", on_state)
    model = tiny.loaded(tiny_lean)
    generator = Generator(
        lambda: model, budget=Budget(max_running_requests=1), limits=Limits(), observer=metrics,
        encoder_cache_bytes=3000,
    )  # fmt: skip
    before = exported()
    await generator.start()
    twice = [question for question in ("what is it?", "who?", "where?") for _ in range(2)]
    asked = [GenerationRequest(question, PASSAGES, ANSWER.options) for question in twice]
    await asyncio.gather(*map(generator.generate, asked))  # At once, so that some wait.
    await generator.score(ScoringRequest("what is it?", PASSAGES, ["paris"]))
    after = exported()
    await generator.close()

    def moved(name: str) -> float:
        return after[f"rag_generator_{name}"] - before.get(f"rag_generator_{name}", 0.0)

    for histogram in (
        "queue_seconds", "prefill_seconds", "step_seconds", "scoring_seconds", "decode_seconds", "first_token_seconds",
        "time_per_token_seconds", "step_requests", "step_rows",
    ):  # fmt: skip
        assert moved(f"{histogram}_count") > 0, histogram
    for counter in ("encoder_rows", "input_tokens", "padded_tokens", "output_tokens", "encoder_cache_evictions"):
        assert moved(f"{counter}_total") > 0, counter
    assert moved("encoder_cache_misses_total") == moved("encoder_rows_total")
    assert moved("encoder_cache_hits_total") == 3 * len(PASSAGES), "each question's second time"
    assert 0 < after["rag_generator_encoder_cache_bytes"] <= 3000
    assert moved('answers_total{model="RAG_TOKEN"}') == 6
    assert [max(values) > 0 for values in zip(*states, strict=True)] == [True, True, True]


@pytest.mark.parametrize(
    ("error", "reason"), [(Deadline("", reason="DEADLINE_UNREACHABLE"), "DEADLINE_UNREACHABLE"), (Overloaded(""), None)]
)
async def test_refusals_on_arrival_are_counted_by_reason_next_to_those_of_admission(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, error: Any, reason: str | None
) -> None:
    model = tiny.loaded()
    generator = Generator(lambda: model, budget=Budget(), limits=Limits(), observer=generator_metrics())
    await generator.start()
    name = f'rag_generator_refused_total{{reason="{reason or "QUEUE_FULL"}"}}'
    before = exported().get(name, 0.0)
    monkeypatch.setattr(Rounds, "_refusal", lambda *_: error)
    with pytest.raises(type(error)):
        await generator.generate(ANSWER)
    await generator.close()
    assert exported()[name] == before + 1


async def test_requests_that_leave_are_counted_by_reason(tiny: Any) -> None:
    fake = tiny.fake(vocab_size=len(tiny.word_piece()))
    model = tiny.loaded(fake)
    generator = Generator(lambda: model, budget=Budget(), limits=Limits(), observer=generator_metrics())
    await generator.start()
    name = 'rag_generator_dropped_requests_total{reason="failed"}'
    before = exported()[name]
    fake.fail_step = RuntimeError("device lost")
    with pytest.raises(RuntimeError):
        await generator.generate(ANSWER)
    await generator.close()
    assert exported()[name] == before + 1
