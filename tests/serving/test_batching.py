"""Every submitted item gets its own output, once, or a reason."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import errors
from serving.batching import Batch, Batcher, BatchPolicy, Entry
from serving.deadline import Deadline, enter_request


@pytest.fixture
async def gated():
    """A batcher whose runs wait for the gate, so that a queue builds up."""
    gate, batches, seen = threading.Event(), [], []

    def run(items):
        gate.wait(10)
        batches.append(list(items))
        if "bad" in items:
            raise ValueError("bad item")
        return [str(item) * 2 for item in items]

    batcher = Batcher(run, BatchPolicy(4, 10), name="test", on_batch=seen.append)
    await batcher.start()
    yield batcher, gate, batches, seen
    gate.set()
    await batcher.stop()


async def settle() -> None:
    await asyncio.sleep(0.05)


async def test_what_waits_goes_together_and_outputs_find_their_inputs(gated):
    batcher, gate, batches, seen = gated
    tasks = [asyncio.create_task(batcher.submit(name)) for name in "abcdef"]
    await settle()
    gate.set()
    assert await asyncio.gather(*tasks) == ["aa", "bb", "cc", "dd", "ee", "ff"]
    assert [len(batch) for batch in batches] == [4, 2]
    assert all(isinstance(batch, Batch) for batch in seen)


async def test_a_cancelled_caller_is_skipped_and_counted(gated):
    batcher, gate, batches, seen = gated
    first = asyncio.create_task(batcher.submit("a"))
    await settle()
    gone, stays = asyncio.create_task(batcher.submit("b")), asyncio.create_task(batcher.submit("c"))
    await settle()
    gone.cancel()
    gate.set()
    assert await asyncio.gather(first, stays) == ["aa", "cc"]
    assert batches == [["a"], ["c"]]
    assert sum(batch.num_skipped for batch in seen) == 1


async def test_late_work_is_refused_without_being_run(gated):
    batcher, gate, batches, _ = gated
    first = asyncio.create_task(batcher.submit("a"))
    await settle()

    async def late() -> str:
        enter_request(Deadline.after(0.01), "r")
        return await batcher.submit("late")

    task = asyncio.create_task(late())
    await settle()
    gate.set()
    with pytest.raises(errors.Deadline):
        await task
    await first
    assert batches == [["a"]]


async def test_a_failing_run_fails_its_batch_and_no_other(gated):
    batcher, gate, _, _ = gated
    gate.set()
    with pytest.raises(ValueError, match="bad item"):
        await batcher.submit("bad")
    assert await batcher.submit("a") == "aa"


async def test_a_run_that_loses_an_output_is_an_error():
    batcher = Batcher(lambda items: [], BatchPolicy(4, 4), name="test")
    await batcher.start()
    with pytest.raises(RuntimeError, match="0 outputs for 1 inputs"):
        await batcher.submit("a")
    await batcher.stop()


async def test_stopping_answers_everyone_who_waits(gated):
    batcher, gate, _, _ = gated
    tasks = [asyncio.create_task(batcher.submit(name)) for name in "abcdefgh"]
    await settle()
    stop = asyncio.create_task(batcher.stop())
    await settle()
    gate.set()
    await stop
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, errors.NotReady) for result in results)
    assert not batcher.is_alive
    with pytest.raises(errors.NotReady):
        await batcher.submit("x")


entries = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 2), st.floats(0, 100)), max_size=30)


@given(entries)
def test_the_policy_empties_the_queue_within_its_limits_and_never_mixes_priorities(rows):
    loop = asyncio.new_event_loop()
    waiting = [
        Entry(number, cost, priority, Deadline(at), loop.create_future(), time.monotonic())
        for number, (cost, priority, at) in enumerate(rows)
    ]
    policy, taken = BatchPolicy(5, 25), []
    while waiting:
        batch = policy.take(waiting)
        assert batch
        assert len(batch) <= 5
        assert len(batch) == 1 or sum(entry.cost for entry in batch) <= 25
        assert len({entry.priority for entry in batch}) == 1
        assert batch[0].priority == min(entry.priority for entry in waiting)
        waiting = [entry for entry in waiting if entry not in batch]
        taken += [entry.item for entry in batch]
    loop.close()
    assert sorted(taken) == list(range(len(rows)))
