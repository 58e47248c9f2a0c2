"""Milvus's failures as the domain's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymilvus.exceptions import MilvusException

from serving.errors import InvalidRequest, NotFound, NotReady, Overloaded, PermissionDenied, RagError, Unauthenticated

_RETRY_SECONDS = 1.0
# Source: pkg/util/merr of the Milvus repository; 2 is pymilvus's own for a connection that fails.
_UNREACHABLE, _NOT_READY, _NOT_FOUND, _OVERLOADED, _INVALID = (
    (2,),
    (1, 3, 503),
    (4, 100),
    (8, 9, 10),
    (5, 6, 1100, 1101),
)
_CREDENTIALS, _FORBIDDEN = (1800, 1401), (1805, 1400)


@contextmanager
def mapped() -> Iterator[None]:
    """Raises the domain's error for a failed call."""
    try:
        yield
    except MilvusException as error:
        raise error_of(error.code, error.message) from error
    except ValueError as error:  # Of a closed channel.
        raise NotReady(f"Milvus: {error}", reason="BACKEND_UNREACHABLE") from error
    except Exception as error:
        if not type(error).__module__.startswith("grpc"):
            raise
        raise NotReady(f"Milvus cannot be reached: {error}", reason="BACKEND_UNREACHABLE") from error


def error_of(code: int, message: str) -> RagError:
    """The domain's error for one of Milvus's codes."""
    message = f"Milvus: {message}"
    if code in _UNREACHABLE:
        return NotReady(message, reason="BACKEND_UNREACHABLE")
    if code in _OVERLOADED:
        return Overloaded(message, reason="BACKEND_OVERLOADED", retry_after_seconds=_RETRY_SECONDS)
    if code in _NOT_READY:
        return NotReady(message, reason="BACKEND_UNAVAILABLE", retry_after_seconds=_RETRY_SECONDS)
    if code in _NOT_FOUND:
        return NotFound(message, reason="COLLECTION_NOT_FOUND")
    if code in _INVALID:
        return InvalidRequest(message, reason="BACKEND_REFUSED")
    if code in _CREDENTIALS:
        return Unauthenticated(message, reason="BACKEND_CREDENTIALS")
    if code in _FORBIDDEN:
        return PermissionDenied(message, reason="BACKEND_CREDENTIALS")
    return RagError(message, reason="BACKEND_FAILED")
