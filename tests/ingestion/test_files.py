import hashlib
import os
from pathlib import Path

import pytest

from ingestion.errors import UnreadableFile
from ingestion.files import find_files


def write(path: Path, text: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_come_in_name_order_with_sources_relative_to_their_root(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "sub/c.html", "a_sub/d.pdf"):
        write(tmp_path / name)
    found, skipped = find_files([tmp_path])
    assert [file.source for file in found] == ["a.txt", "b.md", "a_sub/d.pdf", "sub/c.html"]
    assert skipped == []


def test_source_names_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "docs" / "sub" / "a.md")
    from_outside, _ = find_files([tmp_path / "docs"])
    monkeypatch.chdir(tmp_path / "docs")
    from_inside, _ = find_files([Path(".")])
    assert [file.source for file in from_outside] == [file.source for file in from_inside] == ["sub/a.md"]


def test_a_file_given_itself_is_named_as_in_its_directory(tmp_path: Path) -> None:
    path = write(tmp_path / "docs" / "a.md")
    assert [file.source for file in find_files([path])[0]] == ["a.md"]


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "content")
    [file], _ = find_files([tmp_path])
    assert file.digest == hashlib.sha256(b"content").hexdigest()
    assert file.num_bytes == 7


def test_hidden_files_and_directories_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / ".git" / "a.md")
    write(tmp_path / ".hidden.md")
    assert find_files([tmp_path]) == ([], [])


def test_files_of_other_types_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "photo.jpeg")
    write(tmp_path / "Makefile")
    _, skipped = find_files([tmp_path])
    assert {file.path.name: file.reason for file in skipped} == {
        "photo.jpeg": "files of type '.jpeg' are not supported",
        "Makefile": "files of type 'without suffix' are not supported",
    }


def test_dangling_links_and_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    (tmp_path / "link.md").symlink_to(tmp_path / "nowhere.md")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")).write_text("text")
    found, skipped = find_files([tmp_path])
    assert found == []
    assert sorted(file.reason for file in skipped) == ["its name is not UTF-8", "not a regular file"]


def test_a_root_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="nowhere: no such file or directory"):
        find_files([tmp_path / "nowhere"])


def test_two_files_of_one_source_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.md")
    write(tmp_path / "two" / "a.md")
    with pytest.raises(UnreadableFile, match="would both be the source 'a"):
        find_files([tmp_path / "one", tmp_path / "two"])


def test_a_file_reached_twice_is_found_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md")
    assert len(find_files([tmp_path, path, tmp_path])[0]) == 1
