"""The answer cache before a real retriever: no write, by whatever way it comes, leaves an answer of before."""

import asyncio

import grpc.aio
import pytest

from protos.rag.v1 import common_pb2, gateway_pb2, retriever_pb2, retriever_pb2_grpc


def upsert(id_, text):
    passage = common_pb2.Passage(id=id_, text=text, source="facts.md")
    return retriever_pb2.UpsertRequest(passages=[retriever_pb2.PassageUpsert(passage=passage)])


def deletion(*ids):
    return retriever_pb2.DeleteRequest(ids=retriever_pb2.IdList(ids=ids))


def patch(**values):
    set_ = {name: common_pb2.Value(string_value=value) for name, value in values.items()}
    return retriever_pb2.PatchMetadataRequest(sources=retriever_pb2.SourceList(names=["facts.md"]), set=set_)


async def ask(house, *, index_generation=0):
    options = gateway_pb2.AnswerOptions(retrieval=common_pb2.RetrievalOptions(index_generation=index_generation))
    reply = await house.answers.Answer(gateway_pb2.AnswerRequest(question="Which city?", options=options))
    return reply.answer


async def check_made_anew_after(house, write, request):
    async with asyncio.timeout(30):  # The indexes follow a write a moment later; until then nothing is kept.
        while not (await ask(house)).from_cache:
            pass
    await write(request)
    assert not (await ask(house)).from_cache


async def test_every_write_has_the_next_equal_question_made_anew(caching_house_with_a_real_retriever):
    house, gateway = caching_house_with_a_real_retriever, caching_house_with_a_real_retriever.retrieval
    async with grpc.aio.insecure_channel(house.gateway.config.retriever) as channel:
        behind = retriever_pb2_grpc.RetrieverServiceStub(channel)  # Past the gateway.
        await gateway.Upsert(iter([upsert("a", "Paris is a city.")]))
        assert not (await ask(house)).from_cache
        await check_made_anew_after(house, gateway.Upsert, iter([upsert("b", "Oslo is a city.")]))
        await check_made_anew_after(house, behind.Upsert, iter([upsert("c", "Lima is a city.")]))
        await check_made_anew_after(house, behind.Upsert, iter([upsert("c", "Lima is one city.")]))
        await check_made_anew_after(house, behind.Delete, deletion("b"))
        await check_made_anew_after(house, behind.PatchMetadata, patch(kind="city"))
        configure = retriever_pb2.ConfigureCollectionRequest
        await check_made_anew_after(house, behind.ConfigureCollection, configure(temperature=0.5))
        fusion = common_pb2.Fusion(lexical_weight=0.5)
        await check_made_anew_after(house, behind.ConfigureCollection, configure(fusion=fusion))
        purge = retriever_pb2.PurgeRequest(ids=retriever_pb2.IdList(ids=["c"]))
        await check_made_anew_after(house, behind.Purge, purge)
        house.generator.digest = "generator-2"
        assert not (await ask(house)).from_cache
        await behind.DropCollection(retriever_pb2.DropCollectionRequest(collection="default"))
        with pytest.raises(grpc.aio.AioRpcError, match="default"):
            await ask(house)
        await behind.Upsert(iter([upsert("a", "Rome is a city.")]))
        assert [each.retrieved.passage.text for each in (await ask(house)).citations] == ["Rome is a city."]


async def test_what_changes_nothing_leaves_the_answer(caching_house_with_a_real_retriever):
    house = caching_house_with_a_real_retriever
    await house.retrieval.Upsert(iter([upsert("a", "Paris is a city.")]))
    await ask(house)
    await house.retrieval.Upsert(iter([upsert("a", "Paris is a city.")]))
    await house.retrieval.Delete(deletion("nothing"))
    assert (await ask(house)).from_cache


async def test_another_served_snapshot_has_the_question_made_anew_and_a_pinned_one_keeps_its_answer(
    caching_house_with_a_real_retriever,
):
    house, gateway = caching_house_with_a_real_retriever, caching_house_with_a_real_retriever.retrieval
    await gateway.Upsert(iter([upsert("a", "Paris is a city.")]))
    frozen = (await gateway.CreateSnapshot(retriever_pb2.CreateSnapshotRequest(collection="default"))).snapshot
    await gateway.Upsert(iter([upsert("b", "Oslo is a city.")]))
    assert len((await ask(house)).citations) == 2
    assert len((await ask(house, index_generation=frozen.index_generation)).citations) == 1
    await gateway.Upsert(iter([upsert("c", "Lima is a city.")]))
    assert (await ask(house, index_generation=frozen.index_generation)).from_cache
    activate = retriever_pb2.ActivateSnapshotRequest(collection="default", index_generation=frozen.index_generation)
    await check_made_anew_after(house, gateway.ActivateSnapshot, activate)
    assert len((await ask(house)).citations) == 1
