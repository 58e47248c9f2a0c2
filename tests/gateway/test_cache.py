import asyncio
from dataclasses import replace

import grpc.aio
import pytest
from prometheus_client import REGISTRY

from gateway.answers import Made
from gateway.cache import AnswerCache
from gateway.prompts import Checkpoint
from gateway.stages import Generation, Question, Retrieval
from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import NotFound

QUESTION = "What is the capital of France?"
DECODING, RETRIEVAL = common_pb2.DecodingOptions, common_pb2.RetrievalOptions


def ask(question=QUESTION, **options):
    return gateway_pb2.AnswerRequest(question=question, options=gateway_pb2.AnswerOptions(**options))


async def answer(house, request=None):
    return (await house.answers.Answer(request or ask())).answer


def num_made(house):
    return len(house.generator.script.seen)


async def test_the_second_equal_question_is_answered_from_the_cache_and_says_so(caching_house):
    first, second = await answer(caching_house), await answer(caching_house)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.answer_id != second.answer_id
    first.answer_id = second.answer_id = ""
    second.from_cache = False
    assert first == second
    assert num_made(caching_house) == len(caching_house.retriever.script.seen) == 1


async def test_a_cached_answers_provenance_is_its_own_and_its_time_the_look_ups(caching_house):
    await answer(caching_house)
    reply = await caching_house.answers.Answer(ask())
    assert (reply.provenance.index_generation, reply.provenance.generator_digest) == (7, "generator-1")
    assert {timing.stage for timing in reply.timings} == {common_pb2.STAGE_TOTAL}


async def test_without_a_configured_size_nothing_is_kept(house):
    house.retriever.state, house.generator.digest = "state-1", "generator-1"
    await answer(house)
    assert not (await answer(house)).from_cache


@pytest.mark.parametrize("changed", ["collection", "generator"])
async def test_a_write_or_another_generator_between_two_questions_has_the_second_made_anew(caching_house, changed):
    await answer(caching_house)
    if changed == "collection":
        caching_house.retriever.state = "state-2"
    else:
        caching_house.generator.digest = "generator-2"
    assert not (await answer(caching_house)).from_cache
    assert (await answer(caching_house)).from_cache
    assert num_made(caching_house) == 2


async def test_a_write_while_the_answer_is_made_has_the_next_question_made_anew(caching_house):
    async def write():
        caching_house.retriever.state = "state-2"

    caching_house.generator.script.hook = write
    await answer(caching_house)
    assert not (await answer(caching_house)).from_cache


async def test_a_dropped_collection_is_not_answered_from(caching_house):
    await answer(caching_house)
    caching_house.retriever.state_error = NotFound("no collection 'default'")
    with pytest.raises(grpc.aio.AioRpcError, match="no collection 'default'"):
        await answer(caching_house)


@pytest.mark.parametrize("absent", ["state", "digest"])
async def test_what_cannot_be_told_to_hold_is_not_kept(caching_house, absent):
    """A backend of an older release does not say what its part came from."""
    setattr(caching_house.retriever if absent == "state" else caching_house.generator, absent, "")
    await answer(caching_house)
    assert not (await answer(caching_house)).from_cache


VARIANTS = [
    ask("What is the capital of France"),
    ask(retrieval=RETRIEVAL(collection="wiki")),
    ask(retrieval=RETRIEVAL(top_k=3)),
    ask(retrieval=RETRIEVAL(top_k=0)),
    ask(retrieval=RETRIEVAL(min_sequence=1)),
    ask(retrieval=RETRIEVAL(index_generation=7)),
    ask(retrieval=RETRIEVAL(filter=common_pb2.Filter(equals=common_pb2.FieldEquals(field="source")))),
    ask(retrieval=RETRIEVAL(filter=common_pb2.Filter(equals=common_pb2.FieldEquals(field="id")))),
    ask(decoding=DECODING(num_beams=4)),
    ask(decoding=DECODING(model="DECODING_MODEL_RAG_TOKEN")),
    ask(decoding=DECODING(model="DECODING_MODEL_CLOSED_BOOK")),
    ask(decoding=DECODING(sampling=common_pb2.Sampling(seed=1))),
    ask(decoding=DECODING(sampling=common_pb2.Sampling(seed=2))),
    ask(explanation=common_pb2.ExplanationOptions(leave_one_out=True)),
]


async def test_questions_that_differ_in_anything_never_share_an_answer(caching_house):
    for request in [ask(), *VARIANTS]:
        assert not (await answer(caching_house, request)).from_cache
    for request in [ask(), *VARIANTS]:
        assert (await answer(caching_house, request)).from_cache


async def test_a_closed_book_answer_depends_on_no_collection(caching_house):
    request = ask(decoding=DECODING(model="DECODING_MODEL_CLOSED_BOOK"))
    await answer(caching_house, request)
    caching_house.retriever.state = "state-2"
    assert (await answer(caching_house, request)).from_cache
    assert caching_house.retriever.num_state_calls == 0


async def test_a_random_answer_is_not_kept(caching_house):
    request = ask(decoding=DECODING(model="DECODING_MODEL_RAG_TOKEN", sampling=common_pb2.Sampling(top_k=5)))
    await answer(caching_house, request)
    assert not (await answer(caching_house, request)).from_cache


async def test_a_cached_answer_is_held_against_the_askers_own_threshold(caching_house):
    await answer(caching_house)
    abstained = await answer(caching_house, ask(min_confidence=0.9))
    assert abstained.from_cache
    assert (abstained.finish_reason, abstained.text) == (common_pb2.FINISH_REASON_ABSTAINED, "")
    assert (await answer(caching_house, ask(min_confidence=0.5))).text == "Paris"


async def test_a_streamed_answer_from_the_cache_sends_passages_and_the_final_message(caching_house):
    request = gateway_pb2.StreamAnswerRequest(question=QUESTION)
    [event async for event in caching_house.answers.StreamAnswer(request)]
    events = [event async for event in caching_house.answers.StreamAnswer(request)]
    assert [event.WhichOneof("event") for event in events] == ["passages", "final"]
    assert events[-1].final.answer.from_cache
    assert len(events[0].passages.passages) == 3


async def test_look_ups_removals_and_bytes_are_measured(caching_house):
    def value(name, **labels):
        return REGISTRY.get_sample_value(f"rag_gateway_answer_cache_{name}", labels) or 0.0

    def state():
        outcomes = [value("lookups_total", outcome=each) for each in ("hit", "miss", "uncacheable")]
        return [*outcomes, value("removals_total", reason="changed")]

    before = state()
    await answer(caching_house)
    assert value("bytes") > 500
    await answer(caching_house)
    caching_house.retriever.state = "state-2"
    await answer(caching_house)
    await answer(caching_house, ask(decoding=DECODING(sampling=common_pb2.Sampling())))
    assert [b - a for a, b in zip(before, state(), strict=True)] == [1, 2, 1, 1]


class Services:
    """A retriever and a generator that only say what they are, and the observer."""

    def __init__(self):
        self.removed, self.bytes, self.gate = [], 0, None

    async def state(self, question, *, timeout):
        if self.gate is not None:
            await self.gate.wait()
        return "state"

    async def checkpoint(self, *, timeout):
        return Checkpoint("digest")

    def cache_lookup(self, outcome):
        pass

    def cache_removal(self, reason):
        self.removed.append(reason)

    def cache_bytes(self, num_bytes):
        self.bytes = num_bytes


FOUND = Retrieval(state="state", num_bytes=1000)
DECODED = Generation("m", "length", "rag_token", 0.5, (), digest="digest", num_bytes=1000)


def question(key):
    return Question("q", options=None, cache_key=key)


def cache_of(services, *, max_bytes=10_000, now=lambda: 0.0):
    return AnswerCache(services, services, services, max_bytes=max_bytes, ttl_seconds=60.0, now=now)


async def recalls(cache, *keys):
    return [await cache.recall(question(key), timeout=None) is not None for key in keys]


async def test_the_least_recently_used_answers_make_room():
    services = Services()
    cache = cache_of(services)
    for key in (b"a", b"b", b"c"):  # About 3 kB each.
        cache.remember(question(key), Made(FOUND, DECODED))
    assert await recalls(cache, b"a") == [True]
    cache.remember(question(b"d"), Made(FOUND, DECODED))
    assert await recalls(cache, b"a", b"b", b"c", b"d") == [True, False, True, True]
    assert services.removed == ["evicted"]
    assert 9000 < services.bytes <= 10_000


async def test_an_answer_larger_than_the_cache_is_not_kept():
    services = Services()
    cache = cache_of(services)
    cache.remember(question(b"a"), Made(FOUND, DECODED))
    cache.remember(question(b"b"), Made(FOUND, replace(DECODED, num_bytes=10_000)))
    assert await recalls(cache, b"a", b"b") == [True, False]


async def test_an_answer_is_used_for_its_time_to_live_and_no_longer():
    services, now = Services(), 0.0
    cache = cache_of(services, now=lambda: now)
    cache.remember(question(b"a"), Made(FOUND, DECODED))
    now = 59.0
    assert await recalls(cache, b"a") == [True]
    now = 60.0
    assert await recalls(cache, b"a") == [False]
    assert (services.removed, services.bytes) == (["expired"], 0)


async def test_an_answer_that_goes_while_its_state_is_asked_for_is_counted_once():
    services = Services()
    cache = cache_of(services)
    cache.remember(question(b"a"), Made(replace(FOUND, state="older"), DECODED))
    services.gate = asyncio.Event()
    both = asyncio.gather(recalls(cache, b"a"), recalls(cache, b"a"))
    await asyncio.sleep(0)
    services.gate.set()
    assert await both == [[False], [False]]
    assert (services.removed, services.bytes) == (["changed"], 0)


async def test_an_answer_kept_twice_is_counted_once():
    services = Services()
    cache = cache_of(services)
    for _ in range(2):
        cache.remember(question(b"a"), Made(FOUND, DECODED))
    assert services.bytes == 3024
