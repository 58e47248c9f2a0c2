import pytest

from rag_client import Passage, field, wire
from rag_client.errors import InvalidRequest
from rag_client.filters import AllOf, AnyOf, Equals, In, Not, Range


def test_comparisons_make_conditions():
    assert (field("year") == 2020) == Equals("year", 2020)
    assert (field("year") != 2020) == Not(Equals("year", 2020))
    assert (field("year") >= 2020) == Range("year", greater_or_equal=2020)
    assert (field("year") > 2020) == Range("year", greater_than=2020)
    assert (field("year") <= 2020) == Range("year", less_or_equal=2020)
    assert (field("year") < 2020) == Range("year", less_than=2020)
    assert field("lang").isin(["en", "de"]) == In("lang", ("en", "de"))


def test_chains_of_one_operator_are_one_list():
    a, b, c = (field(name) == 1 for name in "abc")
    assert (a & b & c) == AllOf((a, b, c))
    assert (a | b | c) == AnyOf((a, b, c))
    assert ((a & b) | c) == AnyOf((AllOf((a, b)), c))


def test_a_double_negation_is_none():
    condition = field("a") == 1
    assert ~~condition == condition


def test_python_and_or_are_refused_because_they_would_drop_a_condition():
    with pytest.raises(TypeError, match="&"):
        (field("a") == 1) and (field("b") == 2)


def test_every_condition_has_its_wire_form():
    condition = (
        (field("year") >= 2020)
        & ~(field("kind") == "draft")
        & field("lang").isin(["en"])
        & (
            (field("score") < 0.5) | (field("ok") == True)  # noqa: E712
        )
    )
    message = wire.filter_message(condition)
    year, kind, lang, either = message.all_of.filters
    assert year.range.greater_or_equal.int_value == 2020
    assert getattr(kind, "not").equals.value.string_value == "draft"
    assert getattr(lang, "in").values[0].string_value == "en"
    assert either.any_of.filters[0].range.less_than.double_value == 0.5
    assert either.any_of.filters[1].equals.value.bool_value is True


def test_a_value_without_a_wire_form_is_refused():
    with pytest.raises(InvalidRequest, match="metadata field 'a' is no str"):
        wire.filter_message(field("a") == None)  # type: ignore[arg-type]  # noqa: E711


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (1 << 63, "whole number of more than 64 bits"),
        (-(1 << 63) - 1, "whole number of more than 64 bits"),
        (["a", 1], "list of something else than str"),
        ({"b": 1}, "no str, int, float, bool or list of str"),
    ],
)
def test_a_metadata_value_that_cannot_be_sent_is_refused_by_its_fields_name(value, complaint):
    with pytest.raises(InvalidRequest, match=f"'year' is {'' if complaint[0] == 'n' else 'a '}{complaint}") as raised:
        wire.passage(Passage("p", "text", metadata={"ok": (1 << 63) - 1, "year": value}))
    assert raised.value.field == "metadata[year]"


def test_something_else_than_a_filter_is_refused():
    with pytest.raises(InvalidRequest, match="field"):
        wire.filter_message("year > 2020")  # type: ignore[arg-type]
