"""Bad input gets a clear error that names the field and the limit, all the way through the gateway."""

import grpc
import numpy as np
import pytest

from rag_client import EmbeddedPassage, Passage, Query
from rag_client.errors import InvalidRequest, NotFound


def test_bad_input_is_refused_by_field_and_limit(system):
    with system.client() as client:
        for question in ("", "   \n"):
            with pytest.raises(InvalidRequest) as caught:
                client.answer(question)
            assert caught.value.field == "question"
        for top_k in (0, 101):
            with pytest.raises(InvalidRequest, match=r"top_k.*100") as caught:
                client.answer("x", top_k=top_k)
            assert caught.value.field == "options.retrieval.top_k"
        with pytest.raises(NotFound, match=r"nosuch.*default"):
            client.answer("x", collection="nosuch")
        with pytest.raises(InvalidRequest, match=r"8,?192") as caught:
            client.answer("x" * 9000)
        assert caught.value.field == "question"
        result = client.upsert([Passage("big", "x" * 70_000), Passage("small", "A small passage.")])
        assert result.num_inserted == 1
        assert [(item.id, item.error.field or "text") for item in result.statuses if item.error] == [("big", "text")]
        with pytest.raises(InvalidRequest, match="384"):
            client.retrieve(Query(vector=np.ones(3, np.float32)))
        refused = client.upsert([EmbeddedPassage(Passage("v", "A vector passage."), np.ones(3, np.float32))])
        assert "384" in str(refused.statuses[0].error)
        with pytest.raises(InvalidRequest) as caught:
            client.answer("x", num_beams=99)
        assert caught.value.field == "options.decoding.num_beams"
        with pytest.raises(InvalidRequest, match=r"num_neighbors.*5"):
            client.answer("x", num_neighbors=6)


def test_bytes_that_are_not_utf8_are_refused_by_field(system):
    with grpc.insecure_channel(system.gateway.address) as channel:
        for method in ("rag.v1.GatewayService/Answer", "rag.v1.RetrieverService/DescribeCollection"):
            raw = channel.unary_unary(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
            with pytest.raises(grpc.RpcError) as caught:
                raw(b"\x0a\x02\xff\xfe", timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "not valid UTF-8" in caught.value.details()
