"""The one table between the domain's errors and gRPC statuses, in both directions."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from serving.errors import (
    Deadline,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    RagError,
    Unauthenticated,
    Unimplemented,
)

CODE_OF: dict[type[RagError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    Deadline: grpc.StatusCode.DEADLINE_EXCEEDED,
    RagError: grpc.StatusCode.INTERNAL,
}
ERROR_OF: dict[grpc.StatusCode, type[RagError]] = {code: error for error, code in CODE_OF.items()}

DOMAIN = "rag.v1"
DETAILS_KEY = "grpc-status-details-bin"
Metadata = tuple[tuple[str, str | bytes], ...]


def code_of(error: RagError) -> grpc.StatusCode:
    """The status code of an error."""
    return CODE_OF.get(type(error), grpc.StatusCode.INTERNAL)


def item_status(error: RagError) -> tuple[int, str, str]:
    """An error as (numeric code, message, reason), for a per-item status."""
    return int(code_of(error).value[0]), error.message, error.reason


def trailing_metadata(error: RagError) -> Metadata:
    """The google.rpc details of an error, as trailing metadata.

    Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
    """
    details: list[any_pb2.Any] = []
    _add(details, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        _add(details, error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        _add(details, error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message, details=details)
    metadata: Metadata = ((DETAILS_KEY, status.SerializeToString()),)
    if isinstance(error, NotReady) and error.retry_after_seconds is not None:
        metadata += (("grpc-retry-pushback-ms", str(int(error.retry_after_seconds * 1000))),)
    return metadata


def error_from_rpc(error: grpc.RpcError, *, callee: str = "") -> RagError:
    """A failed call as the error it stands for, with its reason, field and retry time.

    Args:
        error: What a stub raised.
        callee: Who was called, e.g. "retriever at localhost:50051"; named in the message where nobody answered.
    """
    code: grpc.StatusCode = error.code() if callable(getattr(error, "code", None)) else grpc.StatusCode.UNKNOWN
    message = error.details() if callable(getattr(error, "details", None)) else str(error)
    status = _status_details(error)
    kind = ERROR_OF.get(code, RagError)
    if status is None:  # The transport speaks, not the other server.
        where = callee or "the server"
        if kind is Overloaded:
            return InvalidRequest(
                f"{where}: {message}", field="request", reason="TOO_LARGE"
            )  # gRPC's own message limit.
        if kind is NotReady:
            return NotReady(f"{where} is not reachable: {message}", reason="UNREACHABLE")
        return kind(f"{where}: {message}" if callee else message or code.name)
    found = kind(message or code.name)
    for detail in status.details:
        _read(detail, found)
    return found


def _add(details: list[any_pb2.Any], message: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    details.append(packed)


def _read(detail: any_pb2.Any, into: RagError) -> None:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        into.reason = info.reason
    elif detail.Unpack(bad) and bad.field_violations:
        into.field = bad.field_violations[0].field
    elif detail.Unpack(retry):
        into.retry_after_seconds = retry.retry_delay.ToNanoseconds() / 1e9


def _status_details(error: grpc.RpcError) -> status_pb2.Status | None:
    read = getattr(error, "trailing_metadata", None)
    metadata: Iterable[tuple[str, bytes]] = (read() if callable(read) else None) or ()
    for key, value in metadata:
        if key == DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None
