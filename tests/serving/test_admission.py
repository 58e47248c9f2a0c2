"""What is inside never exceeds the limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.admission import Admission
from serving.errors import InvalidRequest, Overloaded


def test_room_is_given_back_even_when_the_work_fails():
    admission = Admission(2, 10)
    with pytest.raises(ZeroDivisionError), admission.admit(tokens=10):
        raise ZeroDivisionError
    assert (admission.items, admission.tokens) == (0, 0)


def test_a_full_queue_refuses_with_a_time_to_come_back_and_the_limit():
    refusals: list[str] = []
    admission = Admission(1, 10, on_refuse=refusals.append)
    with admission.admit(tokens=1), pytest.raises(Overloaded, match="1 of 1 items") as caught:
        admission.admit(tokens=1)
    assert caught.value.retry_after_seconds > 0
    assert refusals == ["QUEUE_FULL"]


def test_a_request_that_could_never_fit_is_invalid_rather_than_overloaded():
    with pytest.raises(InvalidRequest, match="10 tokens") as caught:
        Admission(1, 10).admit(tokens=11)
    assert caught.value.reason == "TOO_LARGE"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(0, 40))))
def test_the_limits_hold_under_any_order_of_coming_and_going(steps):
    admission, inside = Admission(5, 60), []
    for leaves, items, tokens in steps:
        if leaves and inside:
            inside.pop().__exit__(None, None, None)
        else:
            try:
                inside.append(admission.admit(items=items, tokens=tokens))
            except Overloaded:
                pass
        assert 0 <= admission.items <= 5
        assert 0 <= admission.tokens <= 60
    while inside:
        inside.pop().__exit__(None, None, None)
    assert (admission.items, admission.tokens) == (0, 0)
