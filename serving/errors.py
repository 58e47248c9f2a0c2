"""The closed list of errors that the domain raises. Imports nothing; `serving.status` maps them to gRPC."""


class RagError(Exception):
    """Something the caller is told about.

    Attributes:
        message: For people: names the field and the limit, or the thing and its state.
        reason: For programs: an upper-case word, stable across releases.
        field: The request field at fault, in the contract's names, or None.
        retry_after_seconds: When trying again may work, or None.
    """

    default_reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        field: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(RagError):
    """The request is wrong whatever the server's state; sending it again cannot help."""

    default_reason = "INVALID"


class NotFound(RagError):
    """The thing named does not exist."""

    default_reason = "NOT_FOUND"


class FailedPrecondition(RagError):
    """The request is fine, the state is not: encoder differs from the index, write to a reader."""

    default_reason = "FAILED_PRECONDITION"


class Unauthenticated(RagError):
    """Nobody the server knows is asking."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(RagError):
    """The caller is known and may not."""

    default_reason = "PERMISSION_DENIED"


class Unimplemented(RagError):
    """The contract has it, this server does not."""

    default_reason = "UNIMPLEMENTED"


class Overloaded(RagError):
    """No room now. Not retried by channels: the caller decides, after `retry_after_seconds`."""

    default_reason = "QUEUE_FULL"


class NotReady(RagError):
    """Loading, draining, or something behind is gone. The only error that channels retry."""

    default_reason = "NOT_READY"


class Deadline(RagError):
    """The request's time is up, or cannot suffice."""

    default_reason = "DEADLINE_EXCEEDED"
