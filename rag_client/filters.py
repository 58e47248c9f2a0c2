"""Conditions on passages: `(field("year") >= 2020) & field("lang").isin(["en", "de"]) & ~(field("kind") == "draft")`.

Only fields that the collection declares filterable, and "source" and "id", may be named; the server checks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rag_client.types import Value


class Filter:
    """A condition; combine with `&` (and), `|` (or) and `~` (not)."""

    __slots__ = ()

    def __and__(self, other: "Filter") -> "Filter":
        return AllOf((*_parts(self, AllOf), *_parts(other, AllOf)))

    def __or__(self, other: "Filter") -> "Filter":
        return AnyOf((*_parts(self, AnyOf), *_parts(other, AnyOf)))

    def __invert__(self) -> "Filter":
        return self.filter if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        raise TypeError("a filter has no truth value: combine filters with &, | and ~, each in parentheses")


@dataclass(frozen=True, slots=True)
class Equals(Filter):
    """The field has this value; for a list of strings, one of its elements has."""

    field: str
    value: Value


@dataclass(frozen=True, slots=True)
class In(Filter):
    """The field has one of these values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Range(Filter):
    """The field lies in an interval; a bound that is None is open."""

    field: str
    greater_than: Value | None = None
    greater_or_equal: Value | None = None
    less_than: Value | None = None
    less_or_equal: Value | None = None


@dataclass(frozen=True, slots=True)
class AllOf(Filter):
    """Every condition holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf(Filter):
    """At least one condition holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The condition does not hold."""

    filter: Filter


class Field:
    """A metadata field, to be compared with a value."""

    __slots__ = ("_name",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, value: Value) -> Filter:  # type: ignore[override]
        return Equals(self._name, value)

    def __ne__(self, value: Value) -> Filter:  # type: ignore[override]
        return Not(Equals(self._name, value))

    def __gt__(self, value: Value) -> Filter:
        return Range(self._name, greater_than=value)

    def __ge__(self, value: Value) -> Filter:
        return Range(self._name, greater_or_equal=value)

    def __lt__(self, value: Value) -> Filter:
        return Range(self._name, less_than=value)

    def __le__(self, value: Value) -> Filter:
        return Range(self._name, less_or_equal=value)

    def isin(self, values: Iterable[Value]) -> Filter:
        """One of these values."""
        return In(self._name, tuple(values))


def field(name: str) -> Field:
    """The metadata field of this name, "source" or "id"."""
    return Field(name)


def _parts(condition: Filter, kind: type[AllOf] | type[AnyOf]) -> tuple[Filter, ...]:
    """The conditions of a chain of the same operator, so that `a & b & c` is one list and not a nest."""
    return condition.filters if isinstance(condition, kind) else (condition,)
