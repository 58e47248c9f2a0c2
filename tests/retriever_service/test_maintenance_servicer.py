"""Collections as wholes over real gRPC: what callers send and what they are told."""

import grpc.aio
import pytest

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from protos.rag.v1 import retriever_pb2_grpc
from retriever_service.__main__ import build_service
from retriever_service.config import RetrieverConfig
from serving.status import error_from_rpc
from serving.testing import test_server as run_server


@pytest.fixture
async def stub(open_retriever, other_encoder):
    async with (
        open_retriever(others=[other_encoder]) as retriever,
        run_server(build_service(RetrieverConfig(), retriever)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        fields = [
            wire.FilterableField(name="year", type=common.FIELD_TYPE_INT),
            wire.FilterableField(name="tags", type=common.FIELD_TYPE_STRING),
        ]
        settings = wire.CollectionSettings(name="default", filterable_fields=fields)
        await stub.CreateCollection(wire.CreateCollectionRequest(settings=settings))
        passages = [
            common.Passage(id="a", text="alpha text", source="one.md", metadata={"year": common.Value(int_value=1990)}),
            common.Passage(id="b", text="beta text", source="one.md"),
            common.Passage(id="c", text="gamma text", source="two.md"),
        ]
        items = [wire.PassageUpsert(passage=passage) for passage in passages]
        sources = [wire.Source(name="one.md", digest="1"), wire.Source(name="two.md", digest="2")]
        await stub.Upsert(iter([wire.UpsertRequest(passages=items, sources=sources)]))
        yield stub


def patch(**fields):
    return wire.PatchMetadataRequest(set={"year": common.Value(int_value=2000)}, **fields)


def ids(*values):
    return wire.IdList(ids=values)


YEAR = common.Filter(equals=common.FieldEquals(field="year", value=common.Value(int_value=2000)))


async def found(stub, condition=YEAR, **options):
    options = common.RetrievalOptions(filter=condition, **options)
    reply = await stub.Retrieve(wire.RetrieveRequest(queries=[wire.Query(text="text")], options=options))
    return {hit.passage.id for hit in reply.results[0].passages}


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return error_from_rpc(raised.value)


@pytest.mark.parametrize(
    ("selector", "patched"),
    [
        ({"ids": ids("a", "absent")}, {"a"}),
        ({"sources": wire.SourceList(names=["one.md"])}, {"a", "b"}),
        (
            {"filter": common.Filter(equals=common.FieldEquals(field="id", value=common.Value(string_value="c")))},
            {"c"},
        ),
    ],
)
async def test_patched_metadata_is_durable_found_by_filters_and_counted(stub, selector, patched):
    reply = await stub.PatchMetadata(patch(**selector))
    assert (reply.num_patched, reply.sequence) == (len(patched), 3 + len(patched))
    assert await found(stub, min_sequence=reply.sequence) == patched
    again = await stub.PatchMetadata(patch(**selector))
    assert (again.num_patched, again.sequence) == (0, reply.sequence)


async def test_a_removed_field_is_gone_and_the_others_stay(stub):
    more = {"note": common.Value(string_value="n"), "year": common.Value(double_value=0)}
    refused = await refusal(stub.PatchMetadata(wire.PatchMetadataRequest(ids=ids("a"), set=more)))
    assert (refused.field, "declared int" in refused.message) == ("set[year]", True)
    await stub.PatchMetadata(wire.PatchMetadataRequest(ids=ids("a"), set={"note": more["note"]}))
    await stub.PatchMetadata(wire.PatchMetadataRequest(ids=ids("a"), remove=["year", "absent"]))
    (passage,) = (await stub.GetPassages(wire.GetPassagesRequest(ids=["a"]))).passages
    assert dict(passage.metadata) == {"note": common.Value(string_value="n")}
    assert (
        await found(stub, common.Filter(range=common.FieldRange(field="year", less_than=common.Value(int_value=9999))))
        == set()
    )


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (patch(), "selector"),
        (wire.PatchMetadataRequest(ids=ids("a")), "set"),
        (patch(ids=ids("a"), remove=["year"]), "remove"),
        (wire.PatchMetadataRequest(ids=ids("a"), set={"x": common.Value()}), "set[x]"),
        (patch(filter=common.Filter(equals=common.FieldEquals(field="nope"))), "filter.equals.value"),
        (wire.PatchMetadataRequest(ids=ids("a"), set={f"f{i}": common.Value(int_value=i) for i in range(64)}), None),
    ],
)
async def test_a_patch_that_cannot_be_is_refused_naming_the_field(stub, request_, field):
    refused = await refusal(stub.PatchMetadata(request_))
    assert type(refused).__name__ == "InvalidRequest"
    assert field is None or refused.field == field


async def test_snapshots_are_made_listed_activated_compared_and_dropped(stub):
    made = (await stub.CreateSnapshot(wire.CreateSnapshotRequest(label="v1"))).snapshot
    assert (made.collection, made.index_generation, made.label, made.num_passages) == ("default", 1, "v1", 3)
    await stub.Delete(wire.DeleteRequest(ids=ids("b")))
    activated = await stub.ActivateSnapshot(wire.ActivateSnapshotRequest(index_generation=1))
    assert (activated.snapshot.index_generation, activated.previous_index_generation) == (1, 2)
    listed = (await stub.ListSnapshots(wire.ListSnapshotsRequest())).snapshots
    assert [(one.index_generation, one.live, one.active) for one in listed] == [(2, True, False), (1, False, True)]
    request = wire.DiffSnapshotsRequest(from_index_generation=1, to_index_generation=2)
    changes = [(one.passage_id, one.change) async for one in stub.DiffSnapshots(request)]
    assert changes == [("b", wire.DiffSnapshotsResponse.CHANGE_REMOVED)]
    refused = await refusal(stub.DropSnapshot(wire.DropSnapshotRequest(index_generation=1)))
    assert refused.reason == "INDEX_GENERATION_IN_USE"
    await stub.ActivateSnapshot(wire.ActivateSnapshotRequest(index_generation=2))
    await stub.DropSnapshot(wire.DropSnapshotRequest(index_generation=1))
    refused = await refusal(stub.ActivateSnapshot(wire.ActivateSnapshotRequest(index_generation=1)))
    assert refused.reason == "INDEX_GENERATION_NOT_FOUND"


async def test_an_export_begins_with_what_it_is_and_holds_passages_vectors_and_sources(stub):
    described = (await stub.DescribeCollection(wire.DescribeCollectionRequest(collection="default"))).collection
    replies = [one async for one in stub.ExportCollection(wire.ExportCollectionRequest(include_vectors=True))]
    first = replies[0]
    assert (first.num_total, first.snapshot.digest, first.snapshot.sequence) == (3, described.index_digest, 3)
    items = [item for reply in replies for item in reply.passages]
    assert [item.passage.id for item in items] == ["a", "b", "c"]
    assert {item.vector.dim for item in items} == {16}
    assert [source.name for reply in replies for source in reply.sources] == ["one.md", "two.md"]
    bare = [one async for one in stub.ExportCollection(wire.ExportCollectionRequest())]
    assert not any(item.HasField("vector") for reply in bare for item in reply.passages)


async def test_re_encoding_tells_progress_and_ends_with_the_collection(stub):
    request = wire.ReencodeCollectionRequest(encoder="other", activate=True)
    replies = [one async for one in stub.ReencodeCollection(request)]
    assert (replies[-1].num_encoded, replies[-1].num_total, replies[-1].index_generation) == (3, 3, 2)
    assert (replies[-1].collection.index_generation, replies[-1].collection.encoder.name) == (2, "other")
    assert not replies[0].HasField("collection")


async def test_a_purge_tells_what_it_rewrote(stub):
    await stub.CreateSnapshot(wire.CreateSnapshotRequest())
    reply = await stub.Purge(wire.PurgeRequest(sources=wire.SourceList(names=["one.md"])))
    assert (reply.num_purged, list(reply.rewritten_index_generations)) == (2, [1, 2])
    assert (await refusal(stub.Purge(wire.PurgeRequest()))).field == "selector"


async def test_the_state_names_what_retrievals_come_from(stub):
    async def state(number=0):
        request = wire.GetCollectionStateRequest(index_generation=number)
        return (await stub.GetCollectionState(request)).collection_state

    async def retrieved(number=0):
        options = common.RetrievalOptions(index_generation=number)
        request = wire.RetrieveRequest(queries=[wire.Query(text="text")], options=options)
        return (await stub.Retrieve(request)).provenance.collection_state

    assert await state() == await retrieved()
    await stub.CreateSnapshot(wire.CreateSnapshotRequest())
    frozen = await state(1)
    seen = {await state()}
    for change in (
        lambda: stub.Delete(wire.DeleteRequest(ids=ids("a"))),
        lambda: stub.ConfigureCollection(wire.ConfigureCollectionRequest(temperature=0.3)),
        lambda: stub.ActivateSnapshot(wire.ActivateSnapshotRequest(index_generation=1)),
    ):
        await change()
        seen.add(await state())
    assert len(seen) == 4
    assert await state() == await state(1) == await retrieved() == frozen
