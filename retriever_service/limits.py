"""Every limit of the retriever in one place, as the contract's field comments state them; GetInfo reports them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from serving.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force. The unit of each stands in its name; without one it counts items."""

    max_top_k: int = 100
    max_num_candidates: int = 1_000
    max_reranked: int = 100
    max_neighbors: int = 5
    max_queries: int = 128
    max_query_bytes: int = 8_192
    max_embed_texts: int = 128
    max_id_bytes: int = 512
    max_title_bytes: int = 1_024
    max_text_bytes: int = 65_536
    max_source_bytes: int = 2_048
    max_metadata_fields: int = 64
    max_metadata_name_bytes: int = 256
    max_string_value_bytes: int = 8_192
    max_list_values: int = 256
    max_passages_per_message: int = 1_024
    max_passages_per_stream: int = 100_000
    max_sources_per_stream: int = 10_000
    max_replace_bytes: int = 256 * 1024 * 1024  # A replacing stream is one transaction, held in memory until then.
    max_delete_ids: int = 10_000
    max_delete_sources: int = 1_000
    max_label_bytes: int = 128
    max_get_ids: int = 1_000
    max_page_size: int = 1_000
    max_filterable_fields: int = 32
    max_field_name_bytes: int = 64
    max_filter_depth: int = 8
    max_filter_width: int = 64
    max_filter_conditions: int = 256
    max_in_values: int = 1_024
    max_filter_values: int = 8_192
    max_collections: int = 256
    max_statuses: int = 10_000  # Of one upsert; beyond, only those that are not OK are listed.

    def rows(self) -> Iterator[tuple[str, float, str]]:
        """(name, value, unit) of every limit."""
        for field in fields(self):
            yield field.name, float(getattr(self, field.name)), "bytes" if field.name.endswith("_bytes") else "items"


LIMITS = Limits()


def check_text(value: str, max_bytes: int, field: str, *, may_be_empty: bool = True) -> str:
    """The text itself when it is within its limit.

    Raises:
        InvalidRequest: When it is too long, empty though it may not be, or cannot be written as UTF-8.
    """
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{field} is not valid UTF-8 text", field=field, reason="NOT_UTF8") from error
    if size > max_bytes:
        raise InvalidRequest(f"{field} is {size:,} bytes; the limit is {max_bytes:,}", field=field, reason="TOO_LARGE")
    if not may_be_empty and "\0" in value:
        raise InvalidRequest(f"{field} contains a zero byte", field=field)
    if not may_be_empty and not value.strip():
        raise InvalidRequest(f"{field} is empty", field=field, reason="EMPTY")
    return value


def check_count(count: int, maximum: int, field: str, *, minimum: int = 0) -> int:
    """The count itself when it lies in [minimum, maximum].

    Raises:
        InvalidRequest: When it does not.
    """
    if not minimum <= count <= maximum:
        raise InvalidRequest(
            f"{field} is {count:,}; it must be {minimum:,} to {maximum:,}",
            field=field,
            reason="TOO_LARGE" if count > maximum else "TOO_SMALL",
        )
    return count
