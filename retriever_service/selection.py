"""Which passages a write is about: by id, by source or by filter. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retriever_service.collection import FieldType
from retriever_service.filters import Condition, Filter, In, compile_filter
from retriever_service.limits import LIMITS, check_count


@dataclass(frozen=True, slots=True)
class Selection:
    """Exactly one of the three says what is selected.

    Raises:
        InvalidRequest: When there are more ids or sources than may be.
    """

    ids: Sequence[str] = ()
    sources: Sequence[str] = ()
    matching: Filter | None = None

    def __post_init__(self) -> None:
        check_count(len(self.ids), LIMITS.max_delete_ids, "ids")
        check_count(len(self.sources), LIMITS.max_delete_sources, "sources")

    def condition(self, declared: Mapping[str, FieldType]) -> Condition:
        """The selection as a condition on passages.

        Args:
            declared: The collection's filterable fields.

        Raises:
            InvalidRequest: When the filter is not valid for the collection.
        """
        if self.matching is not None:
            return compile_filter(self.matching, declared)
        column, chosen = ("id", self.ids) if self.ids else ("source", self.sources)
        matching = In(column, tuple(chosen))
        return Condition(f"p.{column} IN (SELECT value FROM json_each(?))", (json.dumps(list(chosen)),), matching)
