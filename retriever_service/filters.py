"""Conditions on passages: a small algebra, its validation against a collection's fields, and its SQL. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retriever_service.collection import FieldType, MetadataValue, check_type
from retriever_service.limits import LIMITS, check_text
from serving.errors import InvalidRequest

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Equals:
    """The field has this value; for a list of strings, one of its elements has."""

    field: str
    value: MetadataValue


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values."""

    field: str
    values: tuple[MetadataValue, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies in an interval. Each bound is a key of `_OPERATORS` and a value."""

    field: str
    bounds: tuple[tuple[str, MetadataValue], ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every condition holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one condition holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold; true of passages that lack the field."""

    filter: Filter


Filter = Equals | In | Range | AllOf | AnyOf | Not

_OPERATORS = {"greater_than": ">", "greater_or_equal": ">=", "less_than": "<", "less_or_equal": "<="}
_BUILT_IN = {"id": FieldType.STRING, "source": FieldType.STRING}


_MEMBER = "p.row IN (SELECT row FROM fields WHERE "
_PROBE = "EXISTS (SELECT 1 FROM fields INDEXED BY fields_by_row WHERE row = p.row AND "


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter as SQL over `passages p`, with its parameters: `sql` finds the passages that match.

    `matching` is the filter itself, for backends that know no SQL; None matches everything.
    """

    sql: str
    parameters: tuple[Scalar, ...]
    matching: Filter | None = None

    @property
    def probe(self) -> str:
        """The same condition, written to test passages at hand one by one, not to list all that match."""
        return self.sql.replace(_MEMBER, _PROBE).replace("p.source", "+p.source")


def compile_filter(given: Filter, declared: Mapping[str, FieldType]) -> Condition:
    """Validates a filter and turns it into SQL.

    Args:
        given: The filter.
        declared: The collection's filterable fields.

    Raises:
        InvalidRequest: When it names an undeclared field, compares with a value of another type, is empty, or is over
            a limit of depth, width or size.
    """
    parameters: list[Scalar] = []
    sql = _Compiler({**declared, **_BUILT_IN}, parameters).compile(given, depth=1)
    if len(parameters) > LIMITS.max_filter_values:
        raise _invalid(f"filter holds more than {LIMITS.max_filter_values:,} values")
    return Condition(sql, tuple(parameters), given)


class _Compiler:
    def __init__(self, declared: Mapping[str, FieldType], parameters: list[Scalar]) -> None:
        self._declared, self._parameters, self._num_conditions = declared, parameters, 0

    def compile(self, given: Filter, depth: int) -> str:
        self._num_conditions += 1
        if depth > LIMITS.max_filter_depth:
            raise _invalid(f"filter is nested deeper than {LIMITS.max_filter_depth}")
        if self._num_conditions > LIMITS.max_filter_conditions:
            raise _invalid(f"filter has more than {LIMITS.max_filter_conditions} conditions")
        match given:
            case AllOf(filters):
                return self._join(" AND ", filters, depth)
            case AnyOf(filters):
                return self._join(" OR ", filters, depth)
            case Not(inner):
                return f"NOT {self.compile(inner, depth + 1)}"
            case Equals(field, value):
                return self._test(field, "{column} = ?", (value,))
            case In(field, values):
                if not 1 <= len(values) <= LIMITS.max_in_values:
                    raise _invalid(f"filter on {field!r} has {len(values):,} values, not 1 to {LIMITS.max_in_values:,}")
                return self._test(field, "{column} IN (" + ", ".join("?" * len(values)) + ")", values)
            case Range(field, bounds):
                return self._range(field, bounds)

    def _join(self, operator: str, filters: Sequence[Filter], depth: int) -> str:
        if not 1 <= len(filters) <= LIMITS.max_filter_width:
            raise _invalid(f"a list of filters has {len(filters)} conditions, not 1 to {LIMITS.max_filter_width}")
        return "(" + operator.join(self.compile(one, depth + 1) for one in filters) + ")"

    def _range(self, field: str, bounds: Sequence[tuple[str, MetadataValue]]) -> str:
        if not bounds:
            raise _invalid(f"range on {field!r} has no bound")
        if self._type(field) is FieldType.BOOL:
            raise _invalid(f"range on {field!r}: a bool has no order")
        comparisons = [f"{{column}} {_OPERATORS[operator]} ?" for operator, _ in bounds]
        return self._test(field, " AND ".join(comparisons), [value for _, value in bounds])

    def _test(self, field: str, comparison: str, values: Sequence[MetadataValue]) -> str:
        declared = self._type(field)
        checked = [_check_operand(field, value, declared) for value in values]
        if field in _BUILT_IN:
            self._parameters += checked
            return f"({comparison.format(column=f'p.{field}')})"
        self._parameters += [field, *checked]
        return f"{_MEMBER}name = ? AND {comparison.format(column='value')})"

    def _type(self, field: str) -> FieldType:
        declared = self._declared.get(field)
        if declared is None:
            raise _invalid(
                f"filter names {field!r}; filterable in this collection are {', '.join(sorted(self._declared))}",
                reason="UNDECLARED_FIELD",
            )
        return declared


def _check_operand(field: str, value: MetadataValue, declared: FieldType) -> Scalar:
    checked = check_type(field, value, declared, "filter")
    if isinstance(checked, tuple):
        raise _invalid(f"filter on {field!r} compares with one value, not with a list; use `in`")
    if isinstance(checked, float) and not math.isfinite(checked):
        raise _invalid(f"filter on {field!r}: the value is not finite")
    if isinstance(checked, str):
        check_text(checked, LIMITS.max_string_value_bytes, "filter")
    return checked


def _invalid(message: str, reason: str = "INVALID_FILTER") -> InvalidRequest:
    return InvalidRequest(message, field="filter", reason=reason)
