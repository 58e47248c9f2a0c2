"""The scheduler lets jobs in by deadline and budget, and each job leaves exactly once."""

from __future__ import annotations

import ast
import inspect
import math

from hypothesis import given
from hypothesis import strategies as st

from generator_service import scheduler
from generator_service.scheduler import Budget, Job, Scheduler


def job(*, tokens: int = 1, rows: int = 1, deadline_at: float = math.inf) -> Job:
    return Job(num_input_tokens=tokens, num_decoder_rows=rows, deadline_at=deadline_at)


def test_the_module_imports_no_torch_clock_or_thread() -> None:
    tree = ast.parse(inspect.getsource(scheduler))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= {"heapq", "itertools", "math", "collections.abc", "dataclasses"}


def test_the_earliest_deadline_goes_first_then_the_order_of_arrival() -> None:
    queue = Scheduler(Budget(max_running_requests=1))
    first, second, urgent, soon = job(), job(), job(deadline_at=1.0), job(deadline_at=5.0)
    for each in (first, second, soon, urgent):
        queue.add(each)
    order = []
    while not queue.is_idle:
        (admitted,) = queue.admit()
        order.append(admitted)
        queue.remove(admitted)
    assert order == [urgent, soon, first, second]


def test_a_job_larger_than_every_budget_runs_alone() -> None:
    queue = Scheduler(Budget(max_running_requests=4, max_decoder_rows=10, max_prefill_tokens=10))
    large, small = job(tokens=1000, rows=1000), job()
    queue.add(large)
    queue.add(small)
    assert queue.admit() == [large]
    assert queue.admit() == []
    queue.remove(large)
    assert queue.admit() == [small]


def test_a_job_that_does_not_fit_holds_back_the_ones_behind_it() -> None:
    queue = Scheduler(Budget(max_decoder_rows=10, max_prefill_tokens=10))
    running, large, small = job(rows=6), job(rows=6), job(rows=1)
    for each in (running, large, small):
        queue.add(each)
    assert queue.admit() == [running]
    queue.remove(running)
    assert queue.admit() == [large, small]


def test_cancelled_and_late_jobs_leave_whether_they_wait_or_run() -> None:
    queue = Scheduler(Budget(max_running_requests=2, max_prefill_tokens=10))
    runs_late, runs_cancelled = job(deadline_at=1.0), job(deadline_at=2.0)
    waits_late, waits_cancelled, stays = job(deadline_at=3.0), job(), job()
    for each in (runs_late, runs_cancelled, waits_late, waits_cancelled, stays):
        queue.add(each)
    assert queue.admit() == [runs_late, runs_cancelled]
    runs_cancelled.is_cancelled = waits_cancelled.is_cancelled = True
    swept = queue.sweep(now=3.0)
    assert set(map(id, swept.late)) == {id(runs_late), id(waits_late)}
    assert set(map(id, swept.cancelled)) == {id(runs_cancelled), id(waits_cancelled)}
    assert (queue.num_waiting, queue.num_decoder_rows) == (1, 0)
    assert queue.admit() == [stays]


def test_a_job_of_many_tokens_is_let_in_next_to_running_ones_when_no_other_is_being_read() -> None:
    queue = Scheduler(Budget(max_prefill_tokens=10))
    running, long, short = job(), job(tokens=1000), job()
    queue.add(running)
    assert queue.admit() == [running]
    queue.add(long)
    queue.add(short)
    assert queue.admit(num_unread_tokens=1) == []
    assert queue.admit() == [long]
    assert queue.admit(num_unread_tokens=990) == []
    assert queue.admit(num_unread_tokens=9) == [short]


def test_a_job_without_tokens_to_read_does_not_wait_for_those_that_have_some() -> None:
    queue = Scheduler(Budget(max_prefill_tokens=10))
    queue.add(cached := job(tokens=0))
    assert queue.admit(num_unread_tokens=1000) == [cached]


def test_those_ahead_have_no_later_deadline_and_have_not_left() -> None:
    queue = Scheduler(Budget())
    early, same, later, gone = job(deadline_at=1.0), job(deadline_at=2.0), job(deadline_at=3.0), job(deadline_at=1.0)
    for each in (later, gone, same, early):
        queue.add(each)
    gone.is_cancelled = True
    assert set(map(id, queue.ahead_of(2.0))) == {id(early), id(same)}


_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 50), st.integers(1, 8), st.one_of(st.none(), st.floats(0, 50))),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("finish"), st.integers(0, 50)),
        st.tuples(st.just("round"), st.floats(0, 5)),
    ),
    max_size=60,
)


@given(_ACTIONS)
def test_every_job_leaves_exactly_once_and_the_budget_holds(actions: list[tuple[object, ...]]) -> None:
    budget = Budget(max_running_requests=3, max_decoder_rows=12, max_prefill_tokens=60)
    queue, jobs, left, now = Scheduler(budget), [], [], 0.0
    for action in actions:
        if action[0] == "add":
            _, tokens, rows, deadline = action
            jobs.append(job(tokens=tokens, rows=rows, deadline_at=math.inf if deadline is None else deadline))
            queue.add(jobs[-1])
        elif action[0] == "cancel" and jobs:
            jobs[action[1] % len(jobs)].is_cancelled = True
        elif action[0] == "finish" and queue.running:
            done = queue.running[action[1] % len(queue.running)]
            queue.remove(done)
            left.append(done)
        elif action[0] == "round":
            now += action[1]
            swept = queue.sweep(now)
            left += [*swept.cancelled, *swept.late]
            queue.admit()
            assert not any(each.is_cancelled or each.deadline_at <= now for each in queue.running)
            assert len(queue.running) <= budget.max_running_requests
            assert queue.num_decoder_rows <= budget.max_decoder_rows
            assert queue.running or not queue.num_waiting
    left += queue.clear()
    assert sorted(map(id, left)) == sorted(map(id, jobs))
