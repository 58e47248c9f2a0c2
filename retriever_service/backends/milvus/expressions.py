"""Filters as Milvus's boolean expressions. Pure.

Filterable metadata lies in one JSON column: strings as lists of strings, numbers and bools as themselves. Every test of
it says first that the field is there, for the server's answer to a comparison with a missing field is not documented.

Source: Milvus's reference for boolean expressions and JSON operators.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from retriever_service.backends.operands import BUILT_IN, operand, type_of
from retriever_service.backends.remote import refuse
from retriever_service.collection import FieldType
from retriever_service.filters import AllOf, AnyOf, Equals, Filter, In, Not, Range, Scalar

NOTHING, EVERYTHING = "row < 0", "row >= 0"
_BOUNDS = {"greater_than": ">", "greater_or_equal": ">=", "less_than": "<", "less_or_equal": "<="}


def compile_filter(given: Filter, declared: Mapping[str, FieldType], *, is_negated: bool = False) -> str:
    """A checked filter as an expression, with negations at the tests themselves.

    Raises:
        Unimplemented: When it asks for a range of strings in metadata.
    """
    match given:
        case Not(inner):
            return compile_filter(inner, declared, is_negated=not is_negated)
        case AllOf(filters) | AnyOf(filters):
            operator = " and " if isinstance(given, AllOf) is not is_negated else " or "
            return "(" + operator.join(compile_filter(one, declared, is_negated=is_negated) for one in filters) + ")"
    test = _test(given, declared)
    if given.field in BUILT_IN:
        return f"(not ({test}))" if is_negated else f"({test})"
    # In this order: Milvus 2.3 does not parse `exists a and b`.
    exists = f"(exists {_path(given.field)})"
    return f"(not ({test}) or not {exists})" if is_negated else f"(({test}) and {exists})"


def any_of(column: str, values: Iterable[Scalar]) -> str:
    """Whether a column holds one of these values."""
    listed = ", ".join(map(literal, values))
    return f"{column} in [{listed}]" if listed else NOTHING


def literal(value: Scalar) -> str:
    """A value as an expression writes it."""
    return json.dumps(value, ensure_ascii=False)


def _test(given: Equals | In | Range, declared: Mapping[str, FieldType]) -> str:
    field = given.field
    match given:
        case Range(_, bounds):
            if field not in BUILT_IN and type_of(field, declared) is FieldType.STRING:
                raise refuse("milvus", f"range on the string field {field!r}", "compare for equality, or use a number")
            path = _path(field)
            return " and ".join(
                f"{path} {_BOUNDS[name]} {literal(operand(field, value, declared))}" for name, value in bounds
            )
        case Equals(_, value):
            return _is_one_of(field, [operand(field, value, declared)], declared)
        case In(_, values):
            return _is_one_of(field, [operand(field, value, declared) for value in values], declared)


def _is_one_of(field: str, values: Sequence[Scalar], declared: Mapping[str, FieldType]) -> str:
    if field in BUILT_IN:
        return any_of(field, values)
    path = _path(field)
    if type_of(field, declared) is FieldType.STRING:
        return " or ".join(f"json_contains({path}, {literal(value)})" for value in values)
    return " or ".join(f"{path} == {literal(value)}" for value in values)


def _path(field: str) -> str:
    return field if field in BUILT_IN else f'fields["{field}"]'
