"""With read replicas, what looks for passages goes to them, and everything else to their writer."""

import grpc
import pytest

from protos.rag.v1 import retriever_pb2, retriever_pb2_grpc
from serving.server import Service
from serving.testing import test_server as run_server


class Writer(retriever_pb2_grpc.RetrieverServiceServicer):
    async def Delete(self, request, context):
        return retriever_pb2.DeleteResponse(sequence=7)

    async def ListSources(self, request, context):
        return retriever_pb2.ListSourcesResponse(num_total=9)


@pytest.fixture
async def writer_server():
    writer = Writer()

    def add(server):
        retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(writer, server)

    async with run_server(Service("rag.v1.RetrieverService", add)) as server:
        yield server


async def test_writes_and_what_editing_looks_at_go_to_the_writer(tmp_path, writer_server, open_house):
    async with open_house(tmp_path, retriever_writer=writer_server.address) as house:
        assert (await house.retrieval.Delete(retriever_pb2.DeleteRequest())).sequence == 7
        assert (await house.retrieval.ListSources(retriever_pb2.ListSourcesRequest())).num_total == 9
        assert house.retriever.script.seen == []
        request = retriever_pb2.RetrieveRequest(queries=[retriever_pb2.Query(text="q")])
        assert len((await house.retrieval.Retrieve(request)).results[0].passages) == 3
        assert len(house.retriever.script.seen) == 1


async def test_answers_need_no_writer(tmp_path, open_house):
    async with open_house(tmp_path, retriever_writer="127.0.0.1:1") as house:
        await house.gateway.backends.check()
        request = retriever_pb2.RetrieveRequest(queries=[retriever_pb2.Query(text="q")])
        assert await house.retrieval.Retrieve(request)
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await house.retrieval.Delete(retriever_pb2.DeleteRequest(ids=retriever_pb2.IdList(ids=["a"])))
        assert "retriever_writer at 127.0.0.1:1" in away.value.details()
