"""The client's values → wire messages. What cannot be expressed on the wire is refused here, naming the field."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from protos.rag.v1 import common_pb2, retriever_pb2
from rag_client import options
from rag_client.collection_types import CollectionSettings, Source
from rag_client.errors import InvalidRequest
from rag_client.filters import AllOf, AnyOf, Equals, Filter, In, Not, Range
from rag_client.types import (
    Diversity,
    EmbeddedPassage,
    Fusion,
    Passage,
    Query,
    Rerank,
    Value,
)

WireMessage = TypeVar("WireMessage", bound=Message)

MAX_PASSAGES_PER_MESSAGE = 256
MAX_BYTES_PER_MESSAGE = 1 << 20  # Well under the servers' message limit; one passage alone may be larger.


def message(kind: type[WireMessage], fields: Mapping[str, Any]) -> WireMessage:
    """A message of this kind; fields that are None stay unset.

    Raises:
        InvalidRequest: A value has the wrong type or range; `field` names it.
    """
    result = kind()
    for name, value in fields.items():
        if value is None:
            continue
        try:
            result.MergeFrom(kind(**{name: value}))
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"{name}: {error}", field=name) from error
    return result


def number(wire_enum: Any, prefix: str, choice: str | None, *, field: str) -> int | None:
    """The wire number of a named choice, e.g. "dense"."""
    if choice is None:
        return None
    names = [name.removeprefix(prefix).lower() for name in wire_enum.keys()]  # noqa: SIM118
    if str(choice) not in names[1:]:
        raise InvalidRequest(f"{field} must be one of {', '.join(names[1:])}, not {str(choice)!r}", field=field)
    return int(wire_enum.Value(prefix + str(choice).upper()))


def retrieval_options(given: Mapping[str, Any]) -> common_pb2.RetrievalOptions:
    """The retrieval options among those given."""
    fields = select(given, options.RETRIEVAL_NAMES)
    fields["mode"] = number(common_pb2.RetrievalMode, "RETRIEVAL_MODE_", fields.get("mode"), field="mode")
    fields["filter"] = filter_message(fields["filter"]) if fields.get("filter") is not None else None
    fields["fusion"] = fusion(fields.get("fusion"))
    given_rerank: Rerank | None = fields.get("rerank")
    fields["rerank"] = given_rerank and rerank(given_rerank)
    diversity: Diversity | None = fields.get("diversity")
    fields["diversity"] = diversity and message(common_pb2.Diversity, asdict(diversity))
    return message(common_pb2.RetrievalOptions, fields)


def only_retrieval_options(given: Mapping[str, Any]) -> common_pb2.RetrievalOptions:
    """Retrieval options, refusing any other name."""
    refuse_unknown(given, options.RETRIEVAL_NAMES)
    return retrieval_options(given)


def rerank(given: Rerank) -> common_pb2.Rerank:
    """How hits are read again."""
    method = number(common_pb2.Rerank.Method, "METHOD_", given.method, field="rerank.method")
    return message(common_pb2.Rerank, {**asdict(given), "method": method})


def fusion(given: Fusion | None) -> common_pb2.Fusion | None:
    """Fusion weights."""
    if given is None:
        return None
    method = number(common_pb2.FusionMethod, "FUSION_METHOD_", given.method, field="fusion.method")
    fields = {"dense_weight": given.dense_weight, "lexical_weight": given.lexical_weight, "rrf_k": given.rrf_k}
    return message(common_pb2.Fusion, {"method": method, **fields})


def filter_message(condition: Filter) -> common_pb2.Filter:
    """A condition on passages."""
    match condition:
        case Equals(field, value):
            return common_pb2.Filter(equals=common_pb2.FieldEquals(field=field, value=value_message(field, value)))
        case In(field, values):
            wire_values = [value_message(field, value) for value in values]
            result = common_pb2.Filter()
            getattr(result, "in").CopyFrom(common_pb2.FieldIn(field=field, values=wire_values))
            return result
        case Range(field):
            bounds = ("greater_than", "greater_or_equal", "less_than", "less_or_equal")
            given = {name: getattr(condition, name) for name in bounds}
            wire_bounds = {name: value_message(field, value) for name, value in given.items() if value is not None}
            return common_pb2.Filter(range=common_pb2.FieldRange(field=field, **wire_bounds))
        case AllOf(filters):
            return common_pb2.Filter(all_of=common_pb2.FilterList(filters=map(filter_message, filters)))
        case AnyOf(filters):
            return common_pb2.Filter(any_of=common_pb2.FilterList(filters=map(filter_message, filters)))
        case Not(inner):
            result = common_pb2.Filter()
            getattr(result, "not").CopyFrom(filter_message(inner))
            return result
    raise InvalidRequest(f"filter must be made with field(...), not {condition!r}", field="filter")


def value_message(name: str, value: Value) -> common_pb2.Value:
    """The value of a metadata field.

    Raises:
        InvalidRequest: When there are no such values; the message names the field.
    """
    wrong = ""
    match value:
        case bool():
            fields: dict[str, Any] = {"bool_value": value}
        case str():
            fields = {"string_value": value}
        case int():
            fields = {"int_value": value}
            wrong = "" if -(1 << 63) <= value < 1 << 63 else "is a whole number of more than 64 bits"
        case float():
            fields = {"double_value": value}
        case tuple() | list():
            fields = {"string_list": {"values": value}}
            wrong = "" if all(isinstance(one, str) for one in value) else "is a list of something else than str"
        case _:
            wrong = "is no str, int, float, bool or list of str"
    if wrong:
        raise InvalidRequest(f"metadata field {name!r} {wrong}: {value!r}", field=f"metadata[{name}]")
    return message(common_pb2.Value, fields)


def query(given: str | Query) -> retriever_pb2.Query:
    """One query: text, a vector, or both."""
    if isinstance(given, str):
        return message(retriever_pb2.Query, {"text": given})
    return message(
        retriever_pb2.Query,
        {"text": given.text, "vector": vector(given.vector) if given.vector is not None else None},
    )


def vector(values: npt.ArrayLike) -> common_pb2.Vector:
    """An embedding, as float32."""
    array = np.asarray(values, dtype="<f4")
    if array.ndim != 1:
        raise InvalidRequest(f"a vector has one dimension, not shape {array.shape}", field="vector")
    return common_pb2.Vector(data=array.tobytes(), dtype=common_pb2.DATA_TYPE_FLOAT32, dim=array.size)


def passage(given: Passage | EmbeddedPassage) -> retriever_pb2.PassageUpsert:
    """A passage to write."""
    if isinstance(given, EmbeddedPassage):
        written = passage(given.passage)
        written.vector.CopyFrom(vector(given.vector))
        return written
    span = given.span
    fields = {
        "id": given.id,
        "title": given.title,
        "text": given.text,
        "source": given.source,
        "span": span and common_pb2.TextSpan(start_char=span.start_char, end_char=span.end_char, page=span.page),
        "metadata": {name: value_message(name, value) for name, value in given.metadata.items()},
    }
    return retriever_pb2.PassageUpsert(passage=message(common_pb2.Passage, fields))


def upsert_messages(
    passages: Iterable[Passage | EmbeddedPassage], *, collection: str, sources: Iterable[Source], replace_sources: bool
) -> Iterator[retriever_pb2.UpsertRequest]:
    """The messages of an upsert stream; the first carries collection and sources and is always sent."""
    wire_sources = [retriever_pb2.Source(name=source.name, digest=source.digest) for source in sources]
    current = retriever_pb2.UpsertRequest(collection=collection, sources=wire_sources, replace_sources=replace_sources)
    num_bytes = current.ByteSize()
    for each in passages:
        item = passage(each)
        size = item.ByteSize()
        is_full = len(current.passages) >= MAX_PASSAGES_PER_MESSAGE or num_bytes + size > MAX_BYTES_PER_MESSAGE
        if is_full and current.passages:
            yield current
            current, num_bytes = retriever_pb2.UpsertRequest(), 0
        current.passages.append(item)
        num_bytes += size
    yield current


def settings(given: CollectionSettings) -> retriever_pb2.CollectionSettings:
    """What a collection is made with."""
    fields = [
        message(
            retriever_pb2.FilterableField,
            {"name": name, "type": number(common_pb2.FieldType, "FIELD_TYPE_", kind, field="filterable_fields")},
        )
        for name, kind in given.filterable_fields.items()
    ]
    scoring = number(retriever_pb2.LexicalScoring, "LEXICAL_SCORING_", given.lexical_scoring, field="lexical_scoring")
    return message(
        retriever_pb2.CollectionSettings,
        {
            "name": given.name,
            "metric": number(retriever_pb2.Metric, "METRIC_", given.metric, field="metric"),
            "encoder": given.encoder,
            "filterable_fields": fields,
            "temperature": given.temperature,
            "fusion": fusion(given.fusion),
            "lexical_scoring": scoring,
            "language": given.language,
            "index_factory": given.index_factory,
            "sentence_vectors": given.sentence_vectors,
        },
    )


def select(given: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The options of these names, among those given."""
    return {name: given[name] for name in names & given.keys()}


def refuse_unknown(given: Mapping[str, Any], names: frozenset[str]) -> None:
    """Refuses a misspelt option.

    Raises:
        TypeError: Names it, and those that there are.
    """
    unknown = sorted(given.keys() - names)
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; there are {', '.join(sorted(names))}")
