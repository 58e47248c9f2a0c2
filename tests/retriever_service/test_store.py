import sqlite3

import numpy as np
import pytest

from retriever_service.batch import Batch, EncodedPassage, Outcome
from retriever_service.collection import FieldType, Passage, Source, Span
from retriever_service.filters import Condition
from retriever_service.store import EVERYTHING, Store
from retriever_service.transaction import index_digest
from retriever_service.writing import Writer
from serving.errors import FailedPrecondition

FIELDS = {"year": FieldType.INT, "tags": FieldType.STRING}


def encoded(id_, text, source="", vector=(1.0, 0.0), is_given=False, **rest):
    passage = Passage(id_, rest.pop("title", ""), text, source, **rest)
    return EncodedPassage(passage, np.array(vector, np.float32), is_given)


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store.sqlite")
    yield store
    store.close()


@pytest.fixture
def writer(store):
    return Writer(store, FIELDS)


def write(writer, *passages, **batch):
    return writer.write(Batch(passages, **batch))


def outcomes(written):
    return [item.outcome for item in written.outcomes]


def ids(store):
    with store.reading() as reader:
        return [passage.id for passage in reader.list_passages(EVERYTHING, "", 100).items]


def row_of(store, id_):
    with store.reading() as reader:
        return reader.passages_by_id([id_])[id_][0]


def digest(store):
    with store.reading() as reader:
        return index_digest(reader, "encoder")


def source_digests(store):
    with store.reading() as reader:
        return {source.name: source.digest for source in reader.list_sources("", "", 100).items}


def test_what_is_written_is_read_back_whole(store, writer):
    metadata = {"year": 1998, "tags": ("a", "b"), "score": 1.0, "seen": True, "note": "x\0y \N{SNOWMAN}"}
    written = write(writer, encoded("p", "text", "s", (0.5, 0.25), title="t", span=Span(3, 9, 2), metadata=metadata))
    with store.reading() as reader:
        row, passage = reader.passages_by_id(["p", "absent"])["p"]
        rows, vectors = reader.vectors(np.array([row, 99]))
    assert passage == Passage("p", "t", "text", "s", Span(3, 9, 2), metadata, written.sequence)
    assert type(passage.metadata["score"]) is float
    assert (rows.tolist(), vectors.tolist()) == ([row], [[0.5, 0.25]])


def test_same_content_again_is_unchanged_and_logs_nothing(store, writer):
    first = write(writer, encoded("p", "text"))
    again = write(writer, encoded("p", "text", vector=(0.0, 1.0)))
    assert outcomes(again) == [Outcome.UNCHANGED]
    assert again.sequence == first.sequence


def test_changed_text_gets_a_new_row_and_changed_metadata_keeps_it(store, writer):
    write(writer, encoded("p", "text"))
    row = row_of(store, "p")
    assert outcomes(write(writer, encoded("p", "text", metadata={"year": 1}))) == [Outcome.UPDATED]
    assert row_of(store, "p") == row
    assert outcomes(write(writer, encoded("p", "other"))) == [Outcome.UPDATED]
    assert row_of(store, "p") > row


def test_a_given_vector_replaces_the_stored_one(store, writer):
    write(writer, encoded("p", "text"))
    assert outcomes(write(writer, encoded("p", "text", vector=(0, 1), is_given=True))) == [Outcome.UPDATED]
    assert outcomes(write(writer, encoded("p", "text", vector=(0, 1), is_given=True))) == [Outcome.UNCHANGED]


def test_equal_content_is_kept_once_within_and_across_batches(store, writer):
    first = write(writer, encoded("a", "same"), encoded("b", "same"))
    second = write(writer, encoded("c", "same"))
    assert outcomes(first) == [Outcome.INSERTED, Outcome.DUPLICATE]
    assert [second.outcomes[0].outcome, second.outcomes[0].duplicate_of] == [Outcome.DUPLICATE, "a"]
    assert ids(store) == ["a"]


def test_a_passage_that_becomes_a_duplicate_loses_its_former_text(store, writer):
    write(writer, encoded("a", "one"), encoded("b", "two"))
    assert outcomes(write(writer, encoded("b", "one"))) == [Outcome.DUPLICATE]
    assert ids(store) == ["a"]


def test_replacing_a_source_removes_what_the_stream_does_not_hold(store, writer):
    write(writer, encoded("s-1", "one", "s"), encoded("s-2", "two", "s"), encoded("t-1", "three", "t"))
    written = write(
        writer,
        encoded("s-1", "one", "s"),
        encoded("s-3", "new", "s"),
        sources=[Source("s", "d2")],
        replaced_sources=["s"],
        held_ids=frozenset({"s-1", "s-3", "refused"}),
    )
    assert outcomes(written) == [Outcome.UNCHANGED, Outcome.INSERTED]
    assert written.num_deleted == 1
    assert ids(store) == ["s-1", "s-3", "t-1"]
    assert source_digests(store) == {"s": "d2", "t": ""}


def test_replacing_with_nothing_empties_the_source(store, writer):
    write(writer, encoded("s-1", "one", "s"), encoded("t-1", "three", "t"))
    assert write(writer, sources=[Source("s", "d")], replaced_sources=["s"]).num_deleted == 1
    assert ids(store) == ["t-1"]


def test_a_passage_that_moved_within_its_source_keeps_its_row_under_the_new_id(store, writer):
    write(writer, encoded("s#0", "alpha", "s"), encoded("s#9", "beta", "s"))
    row = row_of(store, "s#9")
    moved = [encoded("s#0", "preface", "s"), encoded("s#8", "alpha", "s"), encoded("s#17", "beta", "s")]
    written = write(writer, *moved, replaced_sources=["s"], held_ids=frozenset({"s#0", "s#8", "s#17"}))
    assert ids(store) == ["s#0", "s#17", "s#8"]
    assert row_of(store, "s#17") == row
    assert written.num_deleted == 0


def test_deleting_a_kept_duplicate_makes_the_other_source_incomplete(store, writer):
    write(writer, encoded("s-1", "same", "s"), sources=[Source("s", "ds")])
    write(writer, encoded("t-1", "same", "t"), encoded("t-2", "more", "t"), sources=[Source("t", "dt")])
    assert source_digests(store) == {"s": "ds", "t": "dt"}
    writer.delete(Condition("p.source = ?", ("s",)), ["s"])
    assert source_digests(store) == {"t": ""}
    assert outcomes(write(writer, encoded("t-1", "same", "t"))) == [Outcome.INSERTED]


def test_index_digest_depends_on_content_and_not_on_the_way_there(tmp_path):
    digests = []
    for name, order in (("one", ["a", "b", "c"]), ("two", ["c", "x", "a", "b"])):
        store = Store.create(tmp_path / name)
        writer = Writer(store, FIELDS)
        for id_ in order:
            write(writer, encoded(id_, f"text {id_}", metadata={"tags": ("q",)}))
        writer.delete(Condition("p.id = ?", ("x",)))
        digests.append(digest(store))
        write(writer, encoded("a", "changed"))
        assert digest(store) != digests[-1]
        store.close()
    assert digests[0] == digests[1]


def test_sequences_rise_and_the_log_names_every_change(store, writer):
    sequences = [write(writer, encoded("a", "one")).sequence, write(writer, encoded("a", "two")).sequence]
    sequences.append(writer.delete(EVERYTHING).sequence)
    assert sequences == sorted(set(sequences))
    with store.reading() as reader:
        log = reader.changes(0, 100)
    assert [change.operation for change in log] == ["added", "removed", "added", "removed"]
    assert [change.sequence for change in log] == [1, 2, 3, 4]


def test_a_failing_batch_leaves_nothing_behind(store, writer):
    broken = encoded("b", "two", metadata={"year": object()})
    with pytest.raises(TypeError):
        write(writer, encoded("a", "one"), broken)
    assert ids(store) == []
    assert outcomes(write(writer, encoded("a", "one"))) == [Outcome.INSERTED]


def test_a_reader_sees_one_state_while_others_write(store, writer, tmp_path):
    other = Store(tmp_path / "store.sqlite")
    with other.reading() as reader:
        assert reader.num_passages() == 0
        write(writer, encoded("a", "one"))
        assert reader.num_passages() == 0
    with other.reading() as reader:
        assert reader.num_passages() == 1
    other.close()


def test_listings_page_in_key_order(store, writer):
    write(writer, *(encoded(f"{i:03}", f"text {i}", f"dir/{i % 3}") for i in range(25)))
    seen, after = [], ""
    with store.reading() as reader:
        while True:
            page = reader.list_passages(EVERYTHING, after, 10)
            seen += [passage.id for passage in page.items]
            assert page.num_total == 25
            if not (after := page.next_after):
                break
        sources = reader.list_sources("dir/", "", 2)
        rest = reader.list_sources("dir/", sources.next_after, 2)
        assert reader.list_sources("DIR/%", "", 2).items == ()
    assert seen == [f"{i:03}" for i in range(25)]
    assert [(source.name, source.num_passages) for source in sources.items] == [("dir/0", 9), ("dir/1", 8)]
    assert ([source.name for source in rest.items], rest.next_after, rest.num_total) == (["dir/2"], "", 3)


def test_a_file_of_a_newer_format_is_refused(tmp_path):
    Store.create(tmp_path / "store.sqlite").close()
    connection = sqlite3.connect(tmp_path / "store.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FailedPrecondition, match="format version 99"):
        Store(tmp_path / "store.sqlite")


def test_commits_are_synced_to_disk(store):
    assert store.connection().execute("PRAGMA synchronous").fetchone() == (2,)
    assert store.connection().execute("PRAGMA journal_mode").fetchone() == ("wal",)
