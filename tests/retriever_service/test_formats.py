"""What earlier releases wrote is brought forward; what later ones wrote is refused."""

import json
import sqlite3
from contextlib import closing

import pytest

from retriever_service import schema
from retriever_service.catalog import Catalog
from retriever_service.collection import Passage
from retriever_service.generations import Generations
from retriever_service.options import QueryInput, RetrievalOptions
from serving.errors import FailedPrecondition


async def ids(retriever, **options):
    found = await retriever.retrieve([QueryInput("old words")], RetrievalOptions(**options))
    return [hit.passage.id for hit in found.results[0]]


@pytest.fixture
async def directory(open_retriever, upsert, tmp_path):
    """A collection with a snapshot, 1, and a head, 2."""
    async with open_retriever() as retriever:
        await upsert(retriever, [Passage("p", "", "old words")])
        await retriever.maintenance.create_snapshot("default", "label")
    return tmp_path / "data" / "collections" / "default"


def to_first_layout(directory):
    """As release 0.1.0 laid a collection out: the head's files in the collection's own directory."""
    generations = Generations(directory)
    head = generations.path(generations.record.head)
    for path in head.iterdir():
        path.rename(directory / path.name)
    for path in directory.glob("generations/*/*"):
        if path.is_file():
            path.unlink()
    (directory / "generations.json").unlink()


async def test_a_collection_of_the_layout_before_generations_is_opened(open_retriever, directory):
    to_first_layout(directory)
    with closing(sqlite3.connect(directory / "store.sqlite")) as connection:  # Left in the write-ahead log by a crash.
        connection.execute("UPDATE passages SET title = 'from the log'")
        connection.commit()
    async with open_retriever() as retriever:
        assert await ids(retriever) == ["p"]
        assert (await retriever.library.describe("default")).index_generation == 1
        found = await retriever.get_passages("default", ["p"], with_vectors=False)
        assert found["p"].passage.title == "from the log"


async def test_an_interrupted_move_of_the_layout_is_finished(open_retriever, directory):
    to_first_layout(directory)
    (directory / "generations" / "1").mkdir(exist_ok=True)
    (directory / "store.sqlite").rename(directory / "generations" / "1" / "store.sqlite")
    assert Catalog(directory.parents[1]).names() == ["default"]
    async with open_retriever() as retriever:
        assert await ids(retriever) == ["p"]


async def test_older_stores_are_migrated_snapshots_too(open_retriever, directory, monkeypatch):
    def add_column(connection):
        connection.execute("ALTER TABLE sources ADD COLUMN note TEXT NOT NULL DEFAULT 'new'")

    version = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
    monkeypatch.setattr(schema, "_MIGRATIONS", {**schema._MIGRATIONS, version: add_column})
    async with open_retriever() as retriever:
        assert await ids(retriever, index_generation=1) == await ids(retriever) == ["p"]
        assert [one.label for one in await retriever.maintenance.list_snapshots("default")] == ["head", "label"]
        await retriever.maintenance.activate_snapshot("default", 1)  # Its checksum is right.
    for store in directory.glob("generations/*/store.sqlite"):
        with closing(sqlite3.connect(store)) as connection:
            assert schema.version_of(connection) == version + 1
            connection.execute("SELECT note FROM sources")


@pytest.mark.parametrize("which", ["record", "store"])
async def test_newer_formats_are_refused(open_retriever, directory, which):
    if which == "record":
        path = directory / "generations.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    else:
        for store in directory.glob("generations/*/store.sqlite"):
            with closing(sqlite3.connect(store)) as connection:
                connection.execute("PRAGMA user_version = 99")
    async with open_retriever() as retriever:
        with pytest.raises(FailedPrecondition, match="format version 99"):
            await ids(retriever)


async def test_a_former_head_that_was_not_frozen_yet_is_frozen_at_the_next_start(open_retriever, directory):
    (manifest,) = directory.glob("generations/*/manifest.json")
    manifest.unlink()
    async with open_retriever() as retriever:
        assert await ids(retriever, index_generation=1) == ["p"]
    assert len(list(directory.glob("generations/*/manifest.json"))) == 1
    assert len(list(directory.glob("generations/*"))) == 2


async def test_what_an_interrupted_change_left_is_deleted(open_retriever, directory):
    (directory / "generations" / "half").mkdir()
    (directory / "generations" / "half" / "store.sqlite").write_bytes(b"half")
    async with open_retriever() as retriever:
        assert await ids(retriever) == ["p"]
    assert not (directory / "generations" / "half").exists()
