"""Collections opened, made and dropped, whoever leaves meanwhile."""

import asyncio

import pytest

from retriever_service.collection import Passage
from serving.errors import NotFound


async def test_a_drop_goes_on_when_its_caller_leaves(open_retriever, upsert):
    async with open_retriever() as retriever:
        await upsert(retriever, [Passage("a", "", "words")])
        async with retriever.library.using("default"):
            call = asyncio.create_task(retriever.library.drop("default"))
            await asyncio.sleep(0.05)  # It waits for this user.
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        with pytest.raises(NotFound):
            await retriever.library.describe("default")
        await upsert(retriever, [Passage("b", "", "words")])
        assert (await retriever.library.describe("default")).num_passages == 1
