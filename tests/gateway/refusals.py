"""What callers are told when they are refused."""

import grpc
import grpc.aio
import pytest

from serving.errors import InvalidRequest
from serving.status import error_from_rpc


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def check_option_refused(house, asked, searched, name, words):
    """Refused for an answer and for a retrieval alike, naming the caller's option, before the retriever is called."""
    calls = ((house.answers.Answer(asked), "options.retrieval"), (house.retrieval.Retrieve(searched), "options"))
    for call, path in calls:
        error = await refusal(call)
        assert isinstance(error, InvalidRequest)
        assert error.field == f"{path}.{name}"
        assert words in error.message
    assert house.retriever.script.seen == []
