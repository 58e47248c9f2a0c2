from pathlib import Path

from ingestion.files import FoundFile
from ingestion.sync import part_digest, plan_sync, stale_parts


def file(source: str, digest: str) -> FoundFile:
    return FoundFile(Path(source), source, digest, num_bytes=1)


def test_new_changed_unchanged_and_vanished_sources_are_told_apart() -> None:
    new, changed, same = file("new.md", "1"), file("changed.md", "2"), file("same.md", "3")
    plan = plan_sync({"changed.md": "1", "same.md": "3", "gone.md": "4"}, [new, changed, same])
    assert plan.added == (new,)
    assert plan.changed == (changed,)
    assert plan.unchanged == (same,)
    assert plan.vanished == ("gone.md",)


def test_a_source_without_a_recorded_digest_is_done_again() -> None:
    assert plan_sync({"a.md": ""}, [file("a.md", "1")]).changed == (file("a.md", "1"),)


def test_sources_named_by_the_rows_of_a_file_have_not_vanished() -> None:
    existing = {
        "faq.jsonl": "1",
        "http://x": part_digest("faq.jsonl", "1"),
        "http://y": part_digest("other.jsonl", "1"),
    }
    assert plan_sync(existing, [file("faq.jsonl", "1")]).vanished == ("http://y",)


def test_row_files_are_done_again_when_a_source_of_unknown_owner_lost_content() -> None:
    existing = {"faq.jsonl": "1", "a.md": "2", "http://x": ""}
    plan = plan_sync(existing, [file("faq.jsonl", "1"), file("a.md", "2")])
    assert [each.source for each in plan.changed] == ["faq.jsonl"]
    assert plan.vanished == ()
    assert plan_sync(existing, [file("a.md", "2")]).vanished == ("faq.jsonl", "http://x")


def test_sources_that_rows_no_longer_name_are_stale() -> None:
    part = part_digest("faq.jsonl", "1")
    existing = {"faq.jsonl": "1", "http://x": part, "http://y": part, "http://z": "1", "a.md": "1"}
    assert stale_parts(existing, file("faq.jsonl", "2"), ["http://x"]) == ["http://y"]
    assert stale_parts({}, file("faq.jsonl", "2"), []) == []
