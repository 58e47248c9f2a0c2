"""What filters have in common when engines compile them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from retriever_service.collection import FieldType, MetadataValue, check_type
from retriever_service.filters import Scalar

BUILT_IN = ("id", "source")


def type_of(field: str, declared: Mapping[str, FieldType]) -> FieldType:
    """The type of a field that a checked filter names."""
    return FieldType.STRING if field in BUILT_IN else declared[field]


def operand(field: str, value: MetadataValue, declared: Mapping[str, FieldType]) -> Scalar:
    """The value of a checked filter as its field's type: integers are widened to double."""
    checked = check_type(field, value, type_of(field, declared), "filter")
    assert not isinstance(checked, tuple)
    return checked


def indexed_values(
    metadata: Mapping[str, MetadataValue], declared: Mapping[str, FieldType]
) -> dict[str, MetadataValue]:
    """The filterable part of a passage's metadata."""
    return {name: metadata[name] for name in declared.keys() & metadata.keys()}
