"""The one server interceptor: request id, deadline, readiness, access log, metrics, and errors to statuses."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from serving.deadline import Deadline, enter_request
from serving.errors import NotReady, RagError
from serving.logs import get_logger
from serving.metrics import RpcMetrics
from serving.status import code_of, trailing_metadata
from serving.wire import Undecodable, tolerant

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_INFRASTRUCTURE = ("/grpc.health.", "/grpc.reflection.")

Handler = Any  # grpc.RpcMethodHandler; the annotation cannot be subscripted at run time.

log = get_logger(__name__)


class RpcInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every handler but health and reflection."""

    def __init__(self, metrics: RpcMetrics, is_loaded: Callable[[], bool]) -> None:
        """Prepares the interceptor.

        Args:
            metrics: The service's own.
            is_loaded: Whether warm-up is over; before that every call is answered NotReady.
        """
        self._metrics, self._is_loaded = metrics, is_loaded
        self._wrapped: dict[str, Handler] = {}  # By method: a handler is wrapped once, not for every call.

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Returns the handler, wrapped."""
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_INFRASTRUCTURE):
            return handler
        wrap, make = self._wrappers(handler)
        self._wrapped[method] = make(
            wrap(_Calls(method, self._metrics), _behaviour(handler)),
            request_deserializer=tolerant(handler.request_deserializer) if handler.request_deserializer else None,
            response_serializer=handler.response_serializer,
        )
        return self._wrapped[method]

    def _wrappers(self, handler: Handler) -> tuple[Any, Any]:
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return self._wrap_stream, make
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return self._wrap_unary, make

    def _wrap_unary(self, calls: _Calls, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            async with self._serve(calls, context):
                return await behaviour(_readable(request), context)

        return call

    def _wrap_stream(self, calls: _Calls, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._serve(calls, context):
                async for response in behaviour(_readable(request), context):
                    yield response

        return call

    @asynccontextmanager
    async def _serve(self, calls: _Calls, context: Any) -> AsyncIterator[None]:
        request_id = _request_id(context)
        remaining = context.time_remaining()
        enter_request(Deadline.never() if remaining is None else Deadline.after(remaining), request_id)
        started, code = time.monotonic(), grpc.StatusCode.OK
        calls.in_flight.inc()
        try:
            if not self._is_loaded():
                raise NotReady("the service is loading", retry_after_seconds=1.0)
            yield
        except RagError as error:
            code = code_of(error)
            await context.abort(code, error.message, trailing_metadata(error))
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:  # A forwarded call has already set its status.
            code = grpc.StatusCode(_code_value(context.code()))
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            log.exception("unexpected error", method=calls.method, request_id=request_id)
            unexpected = RagError(f"internal error; request id {request_id}")
            await context.abort(code, unexpected.message, trailing_metadata(unexpected))
        finally:
            seconds = time.monotonic() - started
            # Once the answer is on its way: nobody waits for the log.
            asyncio.get_running_loop().call_soon(calls.finish, code, seconds, request_id)


class _Calls:
    """The calls of one method, as they are counted and logged."""

    def __init__(self, method: str, metrics: RpcMetrics) -> None:
        self.method = method
        self.in_flight = metrics.in_flight.labels(method=method)
        self._duration_seconds = metrics.duration_seconds.labels(method=method)
        self._finished = metrics.finished

    def finish(self, code: grpc.StatusCode, seconds: float, request_id: str) -> None:
        """Records one that has ended."""
        self.in_flight.dec()
        self._finished.labels(method=self.method, code=code.name).inc()
        self._duration_seconds.observe(seconds)
        log.info("rpc", method=self.method, code=code.name, seconds=round(seconds, 6), request_id=request_id)


def _behaviour(handler: Handler) -> Callable[..., Any]:
    behaviour: Callable[..., Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return behaviour


def _readable(request: Any) -> Any:
    """The request itself, or its error raised; a request stream is checked message by message."""
    if hasattr(request, "__aiter__"):
        return _readable_stream(request)
    if isinstance(request, Undecodable):
        raise request.error
    return request


async def _readable_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)


def _request_id(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return uuid.uuid4().hex


def _code_value(code: Any) -> Any:
    """An aio context reports its code as a StatusCode or as the bare number."""
    if isinstance(code, grpc.StatusCode):
        return code.value
    return next((status.value for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.UNKNOWN.value)
