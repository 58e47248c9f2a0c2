"""Serves the retriever's own service at the gateway's address by forwarding bytes.

Metadata, deadline, cancellation, status and trailing details pass through, for every kind of method. Only Retrieve is
looked into: some reranking needs the generator, which the retriever does not know.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway import convert_retriever as convert
from gateway.clients import RETRIEVER_SERVICE, Backend, GeneratorClient
from gateway.stages import Question
from protos.rag.v1 import common_pb2, gateway_pb2, retriever_pb2, retriever_pb2_grpc
from serving.channel import forwarding_metadata
from serving.deadline import current_deadline
from serving.errors import InvalidRequest, RagError
from serving.status import DETAILS_KEY, item_status

_Metadata = tuple[tuple[str, str | bytes], ...]

# gRPC writes these anew for each hop; the request id is sent as the interceptor settled it.
_HOP_KEYS = frozenset({"user-agent", "content-type", "te", "x-request-id"})
_END_TO_END = frozenset({DETAILS_KEY, "grpc-retry-pushback-ms"})


# What read replicas are for. Everything else changes collections, or is what those look at who change them.
_LOOKING = frozenset({"Retrieve", "Embed", "GetCollectionState", "GetInfo"})


def add_to(server: grpc.aio.Server, backend: Backend, writer: Backend, generator: GeneratorClient) -> None:
    """Registers rag.v1.RetrieverService with a server, every method forwarded to a backend or to its writer."""
    methods = retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"].methods
    handlers = {
        method.name: _handler(
            backend if method.name in _LOOKING else writer,
            f"/{RETRIEVER_SERVICE}/{method.name}",
            method.client_streaming,
            method.server_streaming,
        )
        for method in methods
    }
    channel: Any = backend.channel
    plainly = _forward_unary(backend, channel.unary_unary(f"/{RETRIEVER_SERVICE}/Retrieve"))
    handlers["Retrieve"] = grpc.unary_unary_rpc_method_handler(_forward_retrieve(backend, generator, plainly))
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


def _forward_retrieve(backend: Backend, generator: GeneratorClient, plainly: Callable[[Any, Any], Any]) -> Any:
    stub: Any = retriever_pb2_grpc.RetrieverServiceStub(backend.channel)

    async def forward(content: bytes, context: Any) -> bytes:
        try:
            request = retriever_pb2.RetrieveRequest.FromString(content)
        except DecodeError:  # The retriever says what is wrong with it.
            return bytes(await plainly(content, context))
        rerank = convert.generator_rerank(request.options, "options")
        if rerank is None:
            return bytes(await plainly(content, context))
        request.options.CopyFrom(convert.retrieval_options(request.options, rerank))
        reply = await backend.call(stub.Retrieve, request, timeout=current_deadline().timeout())
        started = time.perf_counter()
        options = gateway_pb2.AnswerOptions(retrieval=request.options)
        for query, result in zip(request.queries, reply.results, strict=True):
            if not result.status.code:
                await _rerank(result, reply, Question(query.text, options, rerank=rerank), generator)
        seconds = time.perf_counter() - started
        reply.timings.add(stage=common_pb2.STAGE_RERANK, duration_seconds=seconds)
        return bytes(reply.SerializeToString())

    return forward


async def _rerank(
    result: retriever_pb2.QueryResult,
    reply: retriever_pb2.RetrieveResponse,
    question: Question,
    generator: GeneratorClient,
) -> None:
    """Reranks one query's hits where they stand; a query that cannot be, fails by itself."""
    assert question.rerank is not None
    try:
        if not question.text.strip():
            raise InvalidRequest(
                f"query.text is empty: rerank by {question.rerank.method} needs it", field="query.text"
            )
        if not result.passages:
            return
        found = convert.retrieval(result.passages, reply, question)
        reranked = await generator.rerank(question, found, timeout=current_deadline().timeout())
        del result.passages[:]
        result.passages.extend(reranked.passages)
    except RagError as error:
        code, message, reason = item_status(error)
        status = common_pb2.Status(code=code, message=message, reason=reason)
        result.CopyFrom(retriever_pb2.QueryResult(status=status))


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
