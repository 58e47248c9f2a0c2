"""What the client raises: a short closed list, the same that the services keep.

It knows gRPC statuses (and their google.rpc details) on one side and these classes on the other.
"""

from typing import Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class RagError(Exception):
    """Any refusal or failure of a call.

    Attributes:
        message: For people; names the field and the limit.
        reason: For programs, e.g. "TOO_LARGE"; empty when the server gave none.
        field: The offending field of the request, or None.
        retry_after_seconds: When to try again, where the server said so.
    """

    def __init__(
        self, message: str, *, reason: str = "", field: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(RagError):
    """The request breaks a rule of the contract; `field` names the place."""


class NotFound(RagError):
    """No such collection, passage or index generation."""


class FailedPrecondition(RagError):
    """The state does not allow it: the encoder differs from the index, the collection is empty, a reader is written."""


class Unauthenticated(RagError):
    """The caller did not say who it is."""


class PermissionDenied(RagError):
    """The caller may not do this."""


class Unimplemented(RagError):
    """The server (or its backend) lacks what was asked for."""


class Overloaded(RagError):
    """The server has too much to do; try again after `retry_after_seconds`."""


class NotReady(RagError):
    """The service, or one behind it, is not reachable, starting or draining."""


class DeadlineExceeded(RagError):
    """The answer did not come within the timeout."""


class InternalError(RagError):
    """The server failed; its log has the request id."""


_BY_CODE: dict[grpc.StatusCode, type[RagError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: NotReady,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class FailedCall(Protocol):
    """What the synchronous and the asynchronous errors of gRPC have in common."""

    def code(self) -> grpc.StatusCode: ...  # noqa: D102

    def details(self) -> str | None: ...  # noqa: D102

    def trailing_metadata(self) -> object: ...  # noqa: D102


def error_from_call(call: FailedCall, target: str) -> RagError:
    """The error that a failed call means; `target` is the gateway's address, for the message."""
    message = call.details() or call.code().name
    details = _details(call)
    if call.code() is grpc.StatusCode.UNAVAILABLE and details is None:
        # Our services always say why; a bare UNAVAILABLE was made by gRPC itself.
        return NotReady(f"gateway at {target} is not reachable: {message}", reason="UNREACHABLE")
    if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and details is None:
        return InvalidRequest(f"message over the size limit: {message}", reason="TOO_LARGE")  # Also made by gRPC.
    kind = _BY_CODE.get(call.code(), InternalError)
    return _with_details(kind, message, details or status_pb2.Status())


def error_from_item(code: int, message: str, reason: str) -> RagError | None:
    """The error of one item of a batch, None when it went well."""
    if code == 0:
        return None
    kind = _BY_CODE.get(_CODES.get(code, grpc.StatusCode.UNKNOWN), InternalError)
    return kind(message, reason=reason)


def _details(call: FailedCall) -> status_pb2.Status | None:
    metadata = call.trailing_metadata() or ()
    for key, value in metadata:  # type: ignore[attr-defined]
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _with_details(kind: type[RagError], message: str, details: status_pb2.Status) -> RagError:
    reason, field, retry_after_seconds = "", None, None
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in details.details:
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return kind(message, reason=reason, field=field, retry_after_seconds=retry_after_seconds)
