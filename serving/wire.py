"""Reading requests off the wire: what is not a valid message becomes an error that names the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from serving.errors import InvalidRequest

_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands in a servicer's request place for bytes that are not the expected message."""

    error: InvalidRequest


def tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A request deserializer that returns `Undecodable` where the original raises.

    gRPC itself would answer INTERNAL without a word on what is wrong.
    """

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            descriptor = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)
            field = _invalid_text_field(data, descriptor) if descriptor is not None else None
            if field is None:
                return Undecodable(
                    InvalidRequest("request is not a valid message", field="request", reason="MALFORMED")
                )
            return Undecodable(InvalidRequest(f"{field} is not valid UTF-8", field=field, reason="NOT_UTF8"))

    return read


def _invalid_text_field(data: bytes, descriptor: Descriptor, path: str = "") -> str | None:
    """The path of the first string field whose bytes are not UTF-8; None when there is none.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    position = 0
    try:
        while position < len(data):
            tag, position = _varint(data, position)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _LENGTH_DELIMITED:
                size, position = _varint(data, position)
                payload = data[position : position + size]
                found = _check_field(payload, descriptor.fields_by_number.get(number), path)
                if found is not None:
                    return found
                position += size
            elif wire_type == _VARINT:
                _, position = _varint(data, position)
            else:
                position += _FIXED_BYTES[wire_type]
    except (KeyError, IndexError):  # Cut off, or no message at all.
        return None
    return None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _check_field(payload: bytes, field: FieldDescriptor | None, path: str) -> str | None:
    if field is None:
        return None
    name = f"{path}.{field.name}" if path else field.name
    if field.type == FieldDescriptor.TYPE_STRING:
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError:
            return name
        return None
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
        return _invalid_text_field(payload, field.message_type, name)
    return None
