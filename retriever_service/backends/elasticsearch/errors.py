"""Elasticsearch's failures as the domain's errors, and sending again what was refused for want of room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import elastic_transport
import elasticsearch

from retriever_service.backends.remote import Moved
from serving.errors import (
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    RagError,
    Unauthenticated,
)

_RETRY_SECONDS = 1.0
_BACK_OFF_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
_TOO_MANY_REQUESTS, _NOT_FOUND = 429, 404
_BEHIND_IS_GONE = (502, 503, 504)
_FROZEN = "index write (api)"  # Of the server's name for the block that `freeze` sets.


@contextmanager
def mapped() -> Iterator[None]:
    """Raises the domain's error for a failed call."""
    try:
        yield
    except elasticsearch.UnsupportedProductError as error:
        raise FailedPrecondition(f"not an Elasticsearch server: {error}", reason="BACKEND_UNKNOWN") from error
    except elasticsearch.ApiError as error:
        raise error_of(error.status_code, str(error)) from error
    except elastic_transport.TransportError as error:
        raise NotReady(f"Elasticsearch cannot be reached: {error}", reason="BACKEND_UNREACHABLE") from error


def error_of(status: int, message: str) -> RagError:
    """The domain's error for an HTTP status."""
    message = f"Elasticsearch: {message}"
    if status == _TOO_MANY_REQUESTS:
        return Overloaded(message, reason="BACKEND_OVERLOADED", retry_after_seconds=_RETRY_SECONDS)
    if status in _BEHIND_IS_GONE:
        return NotReady(message, reason="BACKEND_UNAVAILABLE", retry_after_seconds=_RETRY_SECONDS)
    if status == 401:
        return Unauthenticated(message, reason="BACKEND_CREDENTIALS")
    if status == 403:
        return PermissionDenied(message, reason="BACKEND_CREDENTIALS")
    if status == _NOT_FOUND:
        return NotFound(message, reason="COLLECTION_NOT_FOUND")
    if status == 400:
        return InvalidRequest(message, reason="BACKEND_REFUSED")
    return RagError(message, reason="BACKEND_FAILED")


def send_bulk(
    send: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]],
    operations: Sequence[Sequence[Mapping[str, Any]]],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sends bulk operations; those refused for want of room again, later and later.

    Args:
        send: Sends the lines of a bulk request and returns the reply.
        operations: Each one's lines: the action, and the document where it has one.
        sleep: Waits.

    Raises:
        Moved: When the index is frozen.
        Overloaded: When there is no room for some of them at the end.
        RagError: When one of them fails otherwise; others of the same request may have been made.
    """
    for seconds in (*_BACK_OFF_SECONDS, None):
        reply = send([line for operation in operations for line in operation])
        refused = []
        for operation, item in zip(operations, reply["items"], strict=True):
            ((action, outcome),) = item.items()
            status = int(outcome["status"])
            if status == _TOO_MANY_REQUESTS:
                refused.append(operation)
            elif status >= 400 and not (action == "delete" and status == _NOT_FOUND):
                reason = outcome.get("error", {}).get("reason", "no reason given")
                if _FROZEN in reason:
                    raise Moved(f"Elasticsearch: {reason}")
                raise error_of(status, f"{action} of {outcome.get('_id')!r}: {reason}")
        if not refused:
            return
        if seconds is None:
            raise error_of(_TOO_MANY_REQUESTS, f"no room for {len(refused)} of {len(operations)} writes")
        operations = refused
        sleep(seconds)
