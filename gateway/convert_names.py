"""Names of the wire's numbers, and of fields."""

from collections.abc import Iterable
from typing import Any

from protos.rag.v1 import common_pb2


def enum_name(wire_enum: Any, number: int, prefix: str = "") -> str:
    """The lower-case name of a wire number; "unspecified" for one that is newer than this gateway."""
    if number not in wire_enum.values():
        number = 0
    name = str(wire_enum.Name(number))
    return name.removeprefix(prefix).lower() if prefix else name


def timings(messages: Iterable[common_pb2.StageTiming]) -> dict[str, float]:
    """Seconds by stage name; the backend's own total is what the gateway measures as its stage."""
    seconds: dict[str, float] = {}
    for each in messages:
        if each.stage != common_pb2.STAGE_TOTAL:
            name = enum_name(common_pb2.Stage, each.stage, "STAGE_")
            seconds[name] = seconds.get(name, 0.0) + each.duration_seconds
    return seconds


def head(path: str) -> str:
    """The first name of a path of fields."""
    return path.split(".")[0].split("[")[0]
