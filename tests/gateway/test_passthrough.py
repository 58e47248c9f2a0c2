import asyncio

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.rag.v1 import common_pb2, retriever_pb2
from serving.errors import InvalidRequest


def passages(*ids):
    return [retriever_pb2.PassageUpsert(passage=common_pb2.Passage(id=each, text="t")) for each in ids]


async def test_a_unary_call_is_forwarded_with_its_metadata_deadline_and_request_id(house):
    request = retriever_pb2.RetrieveRequest(queries=[retriever_pb2.Query(text="q")])
    metadata = (("x-request-id", "abc"), ("tenant", "blue"))
    reply = await house.retrieval.Retrieve(request, timeout=100, metadata=metadata)
    assert len(reply.results[0].passages) == 3
    (seen,) = house.retriever.script.seen
    assert seen.request == request
    assert (seen.metadata["x-request-id"], seen.metadata["tenant"]) == ("abc", "blue")
    assert 0 < seen.time_remaining <= 102  # gRPC rounds timeouts up.


async def test_a_client_stream_is_forwarded_and_initial_metadata_comes_back(house):
    async def messages():
        yield retriever_pb2.UpsertRequest(collection="default", passages=passages("a", "b"))
        yield retriever_pb2.UpsertRequest(passages=passages("c"))

    call = house.retrieval.Upsert(messages())
    reply = await call
    assert (reply.num_inserted, reply.sequence) == (3, 41)
    assert house.retriever.script.seen[0].request == ["a", "b", "c"]
    assert ("written-by", "fake") in [tuple(each) for each in await call.initial_metadata()]


async def test_a_server_stream_is_forwarded_in_order(house):
    request = retriever_pb2.ExportCollectionRequest(collection="default")
    assert [reply.num_total async for reply in house.retrieval.ExportCollection(request)] == [1, 2, 3]


async def test_a_refusal_passes_with_status_message_and_details_untouched(house):
    async def refuse():
        raise InvalidRequest("options.top_k must be 1 to 100", field="options.top_k", reason="TOO_SMALL")

    house.retriever.script.hook = refuse
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.retrieval.Retrieve(retriever_pb2.RetrieveRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "options.top_k must be 1 to 100"
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    violation, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    assert any(each.Unpack(violation) for each in status.details)
    assert violation.field_violations[0].field == "options.top_k"
    assert any(each.Unpack(info) for each in status.details)
    assert info.reason == "TOO_SMALL"


async def test_a_server_streams_refusal_passes_too(house):
    async def refuse():
        raise InvalidRequest("no", field="collection")

    house.retriever.script.hook = refuse
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [reply async for reply in house.retrieval.ExportCollection(retriever_pb2.ExportCollectionRequest())]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_message_are_refused_by_the_retriever_itself(house):
    retrieve = house.channel.unary_unary("/rag.v1.RetrieverService/Retrieve")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieve(b"\x0a\x04\x0a\x02\xff\xfe")  # queries[0].text is not UTF-8.
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "queries.text is not valid UTF-8" in caught.value.details()


async def test_cancelling_a_forwarded_call_cancels_it_at_the_retriever(house):
    asked = asyncio.Event()

    async def hang():
        asked.set()
        await asyncio.Event().wait()

    house.retriever.script.hook = hang
    call = house.retrieval.Retrieve(retriever_pb2.RetrieveRequest())
    await asked.wait()
    call.cancel()
    await asyncio.wait_for(house.retriever.script.cancelled.wait(), 10)


async def test_a_dead_retriever_is_named(house):
    await house.retriever_server.server.stop(None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.retrieval.ListCollections(retriever_pb2.ListCollectionsRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details().startswith(f"retriever at {house.retriever_server.address} is not reachable")


async def test_a_method_that_the_retriever_lacks_is_unimplemented(house):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.channel.unary_unary("/rag.v1.RetrieverService/Nonsense")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_lists_both_services(house):
    stub = reflection_pb2_grpc.ServerReflectionStub(house.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    async for reply in call:
        names = {service.name for service in reply.list_services_response.service}
        break
    assert {"rag.v1.GatewayService", "rag.v1.RetrieverService"} <= names
