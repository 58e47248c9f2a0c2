import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

Rag = Callable[..., Awaitable[Any]]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "france.md").write_text("# France\n\n## Paris\n\nParis is the capital.\n\n## Lyon\n\nLyon is a city.\n")
    (folder / "notes.txt").write_text("Just a note.")
    return folder


def rows(count: int) -> str:
    return "".join(json.dumps({"id": f"p{number}", "text": f"Text {number}."}) + "\n" for number in range(count))


async def test_files_become_passages_with_titles_spans_and_recorded_digests(rag: Rag, served: Any, docs: Path) -> None:
    finished = await rag("ingest", str(docs), "--address", served.address)
    assert finished.code == 0, finished.err
    assert finished.err == "created collection 'default'\n"
    assert "2 new, 0 changed, 0 unchanged" in finished.out
    assert "3 added, 0 updated, 0 unchanged, 0 duplicates, 0 deleted" in finished.out
    collection = served.retriever.collections["default"]
    paris = collection.passages["france.md#15"]
    assert (paris.title, paris.text, paris.source) == ("France: Paris", "Paris is the capital.", "france.md")
    assert (paris.span.start_char, paris.span.end_char) == (15, 36)
    assert len(collection.digests["france.md"]) == 64


async def test_a_second_ingest_writes_nothing(rag: Rag, served: Any, docs: Path) -> None:
    await rag("ingest", str(docs), "--address", served.address)
    num_upserts = served.retriever.num_upserts
    finished = await rag("ingest", str(docs), "--address", served.address)
    assert "0 new, 0 changed, 2 unchanged" in finished.out
    assert served.retriever.num_upserts == num_upserts


async def test_a_changed_file_replaces_its_passages(rag: Rag, served: Any, docs: Path) -> None:
    await rag("ingest", str(docs), "--address", served.address)
    (docs / "france.md").write_text("# France\n\n## Paris\n\nParis is the capital.\n")
    finished = await rag("ingest", str(docs), "--address", served.address)
    assert "0 new, 1 changed, 1 unchanged" in finished.out
    assert "0 added, 0 updated, 1 unchanged, 0 duplicates, 1 deleted" in finished.out
    assert sorted(served.retriever.collections["default"].passages) == ["france.md#15", "notes.txt#0"]


async def test_vanished_files_are_deleted_only_on_request(rag: Rag, served: Any, docs: Path) -> None:
    await rag("ingest", str(docs), "--address", served.address)
    (docs / "notes.txt").unlink()
    finished = await rag("ingest", str(docs), "--address", served.address)
    assert "1 vanished (kept)" in finished.out
    assert "notes.txt#0" in served.retriever.collections["default"].passages
    finished = await rag("ingest", str(docs), "--delete-vanished", "--address", served.address)
    assert "1 vanished" in finished.out
    assert "1 deleted" in finished.out
    assert "notes.txt" not in served.retriever.collections["default"].digests


async def test_a_large_file_goes_in_batches_and_loses_what_it_no_longer_holds(
    rag: Rag, served: Any, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"p{number}", "text": f"Text {number}."}) + "\n" for number in range(1100))
    )
    await rag("ingest", str(path), "--address", served.address)
    collection = served.retriever.collections["default"]
    assert len(collection.passages) == 1100
    assert served.retriever.num_upserts == 10  # Eight of 128 passages, one of 76, and the digest.
    path.write_text(
        "".join(json.dumps({"id": f"p{number}", "text": f"Text {number}."}) + "\n" for number in range(600))
    )
    finished = await rag("ingest", str(path), "--address", served.address)
    assert "600 unchanged, 0 duplicates, 500 deleted" in finished.out
    assert len(collection.passages) == 600


async def test_sources_that_rows_name_are_kept_and_dropped_with_their_rows(
    rag: Rag, served: Any, tmp_path: Path
) -> None:
    path = tmp_path / "faq.jsonl"
    path.write_text(
        '{"id": "a", "text": "One.", "source": "http://a"}\n{"id": "b", "text": "Two.", "source": "http://b"}'
    )
    await rag("ingest", str(path), "--address", served.address)
    collection = served.retriever.collections["default"]
    assert set(collection.digests) == {"faq.jsonl", "http://a", "http://b"}
    path.write_text('{"id": "a", "text": "One.", "source": "http://a"}')
    finished = await rag("ingest", str(path), "--delete-vanished", "--address", served.address)
    assert "1 deleted" in finished.out
    assert set(collection.digests) == {"faq.jsonl", "http://a"}
    assert set(collection.passages) == {"a"}


async def test_unreadable_and_unsupported_files_are_named_and_the_rest_is_ingested(
    rag: Rag, served: Any, docs: Path
) -> None:
    (docs / "bad.txt").write_bytes(b"ab\xff")
    (docs / "photo.png").write_bytes(b"png")
    finished = await rag("ingest", str(docs), "--address", served.address)
    assert finished.code == 1
    assert f"failed {docs / 'bad.txt'}: not UTF-8: byte 0xff at offset 2" in finished.err
    assert f"skipped {docs / 'photo.png'}: files of type '.png' are not supported" in finished.err
    assert len(served.retriever.collections["default"].passages) == 3


async def test_refused_passages_are_named_and_their_file_is_tried_again(rag: Rag, served: Any, docs: Path) -> None:
    (docs / "odd.txt").write_text("Please refuse me.")
    for _ in range(2):
        finished = await rag("ingest", str(docs), "--address", served.address)
        assert finished.code == 1
        assert "refused odd.txt#0: passage.text: not liked" in finished.err


async def test_ingest_waits_for_services_that_are_away(rag: Rag, served: Any, docs: Path) -> None:
    served.retriever.num_refusals_left = 5  # The channel itself tries three times.
    finished = await rag("ingest", str(docs), "--address", served.address)
    assert finished.code == 0
    assert "waiting for the services: draining" in finished.err
    assert len(served.retriever.collections["default"].passages) == 3
