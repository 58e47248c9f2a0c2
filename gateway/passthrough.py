"""Serves the retriever's own service at the gateway's address by forwarding bytes: nothing is parsed.

Metadata, deadline, cancellation, status and trailing details pass through, for every kind of method.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from gateway.clients import RETRIEVER_SERVICE, Backend
from protos.rag.v1 import retriever_pb2
from serving.channel import forwarding_metadata
from serving.deadline import current_deadline
from serving.status import DETAILS_KEY

_Metadata = tuple[tuple[str, str | bytes], ...]

# gRPC writes these anew for each hop; the request id is sent as the interceptor settled it.
_HOP_KEYS = frozenset({"user-agent", "content-type", "te", "x-request-id"})
_END_TO_END = frozenset({DETAILS_KEY, "grpc-retry-pushback-ms"})


def add_to(server: grpc.aio.Server, backend: Backend) -> None:
    """Registers rag.v1.RetrieverService with a server, every method forwarded to the backend."""
    methods = retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"].methods
    handlers = {
        method.name: _handler(
            backend, f"/{RETRIEVER_SERVICE}/{method.name}", method.client_streaming, method.server_streaming
        )
        for method in methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(RETRIEVER_SERVICE, handlers),))


def _handler(backend: Backend, path: str, takes_stream: object, sends_stream: object) -> Any:
    channel: Any = backend.channel  # Its stubs demand serializers; without them bytes stay bytes.
    match bool(takes_stream), bool(sends_stream):
        case False, False:
            return grpc.unary_unary_rpc_method_handler(_forward_unary(backend, channel.unary_unary(path)))
        case True, False:
            return grpc.stream_unary_rpc_method_handler(_forward_unary(backend, channel.stream_unary(path)))
        case False, True:
            return grpc.unary_stream_rpc_method_handler(_forward_stream(backend, channel.unary_stream(path)))
        case _:
            return grpc.stream_stream_rpc_method_handler(_forward_stream(backend, channel.stream_stream(path)))


def _forward_unary(backend: Backend, rpc: Any) -> Callable[[Any, Any], Any]:
    async def forward(request: Any, context: Any) -> bytes:
        call = rpc(
            request,
            timeout=current_deadline().timeout(),
            metadata=(*_metadata(context.invocation_metadata()), *forwarding_metadata()),
        )
        try:
            reply: bytes = await call
            await context.send_initial_metadata(_metadata(await call.initial_metadata()))
            context.set_trailing_metadata(_metadata(await call.trailing_metadata()))
            return reply
        except grpc.aio.AioRpcError as failure:
            await _abort(backend, failure, context)
            raise
        finally:
            call.cancel()

    return forward


def _forward_stream(backend: Backend, rpc: Any) -> Callable[[Any, Any], Any]:
    async def forward(request: Any, context: Any) -> AsyncIterator[bytes]:
        call = rpc(
            request,
            timeout=current_deadline().timeout(),
            metadata=(*_metadata(context.invocation_metadata()), *forwarding_metadata()),
        )
        try:
            await context.send_initial_metadata(_metadata(await call.initial_metadata()))
            async for reply in call:
                yield reply
            context.set_trailing_metadata(_metadata(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as failure:
            await _abort(backend, failure, context)
        finally:
            call.cancel()

    return forward


async def _abort(backend: Backend, failure: grpc.aio.AioRpcError, context: Any) -> None:
    """Ends the call as the backend ended it; where nobody answered, with the error that says so."""
    error = backend.error(failure)
    trailing = _metadata(failure.trailing_metadata())
    if not any(key == DETAILS_KEY for key, _ in trailing):
        raise error from failure
    await context.abort(failure.code(), failure.details() or "", trailing)


def _metadata(given: Any) -> _Metadata:
    """What belongs to the call and not to one hop of it."""
    return tuple(
        (key, value)
        for key, value in given or ()
        if key in _END_TO_END or not (key in _HOP_KEYS or key.startswith((":", "grpc-")))
    )
