"""Snapshots, erasure, patches, exports and backups from the command line, with a real retriever behind it."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from protos.rag.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc, retriever_pb2
from rag_client import AsyncRagClient, Passage, Source
from retriever_service.__main__ import build_service
from retriever_service.catalog import Catalog
from retriever_service.collection import EncoderIdentity
from retriever_service.config import RetrieverConfig
from retriever_service.encoder import EncoderInfo
from retriever_service.encoding import Encoding
from retriever_service.metrics import retriever_metrics
from retriever_service.retriever import Retriever
from serving.batching import BatchPolicy
from serving.server import Service
from serving.testing import test_server as serve


class LengthEncoder:
    """Vectors from the letters of a text."""

    def __init__(self, name: str) -> None:
        self.info = EncoderInfo(EncoderIdentity(name, f"digest of {name}", 8, True), "Fake", "cpu", 1, 128)

    def encode(self, inputs):
        counts = [np.bincount(np.frombuffer(one.text.encode(), np.uint8) % 8, minlength=8) for one in inputs]
        vectors = np.array(counts, np.float32) + (1 if self.info.identity.name == "other" else 0)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Gateway(gateway_pb2_grpc.GatewayServiceServicer):
    async def GetInfo(self, request, context):
        encoder = common_pb2.ModelInfo(name="first", digest="digest of first")
        retriever = retriever_pb2.RetrieverServiceGetInfoResponse(encoder=encoder)
        return gateway_pb2.GatewayServiceGetInfoResponse(retriever=retriever)


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A retriever with one collection of three passages on tmp_path/data/retriever."""
    encoders = {name: LengthEncoder(name) for name in ("first", "other")}
    encoding = Encoding(encoders.__getitem__, "first", BatchPolicy(8, 1_000), others=["other"])
    retriever = Retriever(Catalog(tmp_path / "data" / "retriever"), encoding, retriever_metrics())
    with capture_logs():
        await retriever.start()
        services = (
            build_service(RetrieverConfig(), retriever),
            Service("rag.v1.GatewayService", partial(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, Gateway())),
        )
        async with serve(*services) as server, AsyncRagClient(server.address) as client:
            await client.create_collection("default", filterable_fields={"year": "int"}, sentence_vectors=False)
            passages = [
                Passage("a", "alpha text", "A", "one.md", metadata={"year": 1990, "tags": ("x", "y"), "f": 1.0}),
                Passage("b", "beta text", source="one.md"),
                Passage("c", "gamma text", source="two.md"),
            ]
            await client.upsert(passages, sources=[Source("one.md", "1"), Source("two.md", "2")])
            yield server.address
        await retriever.close()


@pytest.fixture
def run(rag, address):
    async def run(*arguments, code=0):
        finished = await rag(*arguments, "--address", address)
        assert finished.code == code, finished.err + finished.out
        return finished.out + finished.err

    return run


async def test_a_snapshot_is_made_served_rolled_back_to_and_compared(run):
    assert "first" in await run("snapshot", "create", "first")
    await run("purge", "--id", "b", "--yes")
    await run("patch", "--id", "c", "--set", "year=2001", "--set", "note=new", "--set", 'tags=["p"]')
    assert (await run("snapshot", "diff", "1")).splitlines() == ["~ c"]
    found = json.loads(await run("search", "beta text", "--index-generation", "1", "--json"))
    assert {one["passage"]["id"] for one in found["passages"]} == {"a", "c"}
    assert "serving index generation 1 (first) with 2 passages; before: 2" in await run("snapshot", "rollback")
    listed = json.loads(await run("snapshot", "list", "--json"))
    assert [(one["index_generation"], one["is_active"], one["label"]) for one in listed] == [
        (2, False, "head"),
        (1, True, "first"),
    ]
    assert "no snapshot older than 1" in await run("snapshot", "rollback", code=1)
    assert "before: 1" in await run("snapshot", "activate", "head")
    await run("snapshot", "drop", "1")
    assert "there are 2" in await run("snapshot", "activate", "1", code=1)


async def test_purging_asks_first_and_needs_one_selection(run):
    assert "kept" in await run("purge", "--source", "one.md", code=1)
    assert "erased 2 passages" in await run("purge", "--source", "one.md", "--yes")
    assert "either --id, --source or --filter" in await run("purge", "--yes", code=1)
    assert "either --id, --source or --filter" in await run("purge", "--id", "a", "--filter", "year = 1990", code=1)


async def test_a_filter_selects_what_is_patched_deleted_and_purged(run):
    assert "changed 1 passages" in await run(
        "patch", "--filter", "year >= 1990", "--filter", "year<2000", "--set", "year=1995"
    )
    assert "all passages with year = [1995, 1996]" in await run("delete", "--filter", "year = [1995, 1996]", code=1)
    assert "no passage matches" in await run("purge", "--filter", "year=1990", "--yes", code=1)
    await run("snapshot", "create")
    assert "erased 1 passages" in await run(
        "purge", "--filter", "year!=1990", "--filter", "source=one.md", "--filter", "id=a", "--yes"
    )
    assert (await run("snapshot", "diff", "1")).splitlines() == []
    assert "deleted 2 passages" in await run("delete", "--filter", 'source=["one.md", "two.md"]', "--yes")


@pytest.mark.parametrize("condition", ["year", "= 3", 'year = {"a": 1}', "year > [1]", "year = null"])
async def test_a_filter_that_says_nothing_is_refused_by_its_text(run, condition):
    assert condition.split()[0] in await run("delete", "--filter", condition, "--yes", code=2)


async def test_what_is_deleted_stays_in_snapshots(run):
    await run("snapshot", "create")
    assert "kept" in await run("delete", "--source", "one.md", code=1)
    assert "deleted 2 passages" in await run("delete", "--source", "one.md", "--yes")
    assert (await run("snapshot", "diff", "1")).splitlines() == ["- a", "- b"]


async def test_values_that_metadata_cannot_hold_are_refused_by_name(run):
    for value in ("null", '{"a": 1}', "99999999999999999999"):
        assert "note" in await run("patch", "--id", "a", "--set", f"note={value}", code=2)


async def test_an_export_that_fails_leaves_nothing(run, tmp_path):
    assert "no-such/kb.jsonl cannot be written" in await run("export", "no-such/kb.jsonl", code=1)
    assert "no index generation 9" in await run("export", "kb.jsonl", "--index-generation", "9", code=1)
    assert not list(tmp_path.glob("kb*"))


async def test_a_patch_that_breaks_a_declared_type_is_refused(run):
    assert "declared int" in await run("patch", "--id", "a", "--set", "year=soon", code=1)
    assert "changed 1 passages" in await run("patch", "--id", "a", "--remove", "year")


async def test_re_encoding_says_how_to_serve_the_outcome(run):
    assert "`rag snapshot activate 2`" in await run("reencode", "other")
    assert "before: 1" in await run("snapshot", "activate", "2")
    assert "holds vectors of encoder 'other' already" in await run("reencode", "other", code=1)


@pytest.mark.parametrize("name", ["kb.jsonl", "kb.jsonl.gz"])
async def test_an_export_is_imported_as_it_was_and_again_without_change(run, name):
    assert "exported 3 passages from 2 sources" in await run("export", name)
    imported = await run("import", name, "-c", "copy")
    assert "3 new" in imported
    assert "the collection is what was exported" in imported
    assert "3 there already" in await run("import", name, "-c", "copy")
    original, copy = [json.loads(await run("sources", "--json", "-c", one)) for one in ("default", "copy")]
    assert [(one["name"], one["digest"]) for one in copy] == [(one["name"], one["digest"]) for one in original]
    assert "exists" in await run("export", name, code=1)


async def test_a_collection_that_has_vectors_of_sentences_is_imported_by_encoding_anew(run):
    await run("collections", "create", "sentences")
    await run("export", "kb.jsonl")
    await run("import", "kb.jsonl", "-c", "sentences")
    settings = [one["settings"] for one in json.loads(await run("collections", "list", "--json"))]
    assert {one["name"]: one["sentence_vectors"] for one in settings} == {"default": False, "sentences": True}


async def test_vectors_of_another_encoder_are_refused_unless_they_are_made_anew(run):
    await run("export", "kb.jsonl")
    await run("collections", "create", "else", "--encoder", "other", "--no-sentence-vectors")
    assert "of encoder first" in await run("import", "kb.jsonl", "-c", "else", code=1)
    assert "3 new" in await run("import", "kb.jsonl", "-c", "else", "--encode")


async def test_a_file_that_is_cut_off_damaged_or_none_is_told(run, tmp_path):
    await run("export", "kb.jsonl")
    lines = (tmp_path / "kb.jsonl").read_text().splitlines(keepends=True)
    for text, said in (
        ("".join(lines[:-1]), "cut off"),
        ("".join(lines).replace("beta text", "best text"), "damaged"),
        ("{}\n", "no file of `rag export`"),
        ("# Notes\n", "no file of `rag export`"),
        (lines[0].replace('"version": 1', '"version": 2'), "version 2"),
    ):
        (tmp_path / "bad.jsonl").write_text(text)
        assert said in await run("import", "bad.jsonl", "-c", "bad", code=1)
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode())[:-200])
    assert "cut off" in await run("import", "bad.jsonl.gz", "-c", "bad", code=1)


async def test_a_backup_is_taken_while_serving_and_restored_elsewhere(run, rag, tmp_path):
    made = await rag("backup", "copy", "--data-dir", "data")
    assert (made.code, "backed up default to copy" in made.out) == (0, True), made.err
    restored = await rag("restore", "copy", "--data-dir", "elsewhere")
    assert (restored.code, "restored default" in restored.out) == (0, True), restored.err
    again = await rag("restore", "copy", "--data-dir", "elsewhere")
    assert (again.code, "holds collections already" in again.err) == (1, True)
    assert await asyncio.to_thread((tmp_path / "elsewhere/retriever/collections/default/generations.json").exists)


async def test_the_asynchronous_client_does_the_same(address):
    async with AsyncRagClient(address) as client:
        first = await client.create_snapshot("first")
        assert (await client.patch_metadata(set={"year": 1}, ids=["a"])).num_patched == 1
        assert (await client.purge(sources=["two.md"])).rewritten_index_generations == (1, 2)
        found = [(each.passage_id, each.change.value) async for each in client.diff_snapshots(1, 2)]
        assert found == [("a", "changed")]
        progress = [each async for each in client.reencode_collection("other", activate=True)]
        assert (progress[-1].num_encoded, progress[-1].collection.encoder.name) == (2, "other")
        activation = await client.activate_snapshot(first.index_generation)
        assert (activation.snapshot.is_active, activation.previous_index_generation) == (True, 3)
        await client.drop_snapshot(2)
        assert [each.index_generation for each in await client.list_snapshots()] == [3, 1]
        batches = [each async for each in client.export_collection(include_vectors=True)]
        assert batches[0].snapshot.index_generation == 1
        assert [each.vector.shape for batch in batches for each in batch.passages] == [(8,), (8,)]
