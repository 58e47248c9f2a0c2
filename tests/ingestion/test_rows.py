import gzip
import json
from pathlib import Path

import pytest

from ingestion.chunker import ChunkOptions
from ingestion.errors import UnreadableFile
from ingestion.passages import Passage
from ingestion.reading import ReadOptions, read_passages
from ingestion.rows import MetadataColumn


def read(path: Path, data: bytes, options: ReadOptions | None = None) -> list[Passage]:
    path.write_bytes(data)
    return list(read_passages(path, path.name, options or ReadOptions()))


def test_json_rows_are_ready_passages_with_their_own_columns(tmp_path: Path) -> None:
    rows = [
        {"id": "p1", "text": "One.", "title": "T", "source": "http://x", "metadata": {"year": 1999, "tags": ["a"]}},
        {"text": "Two."},
    ]
    data = "\n\n".join(map(json.dumps, rows)).encode()
    assert read(tmp_path / "faq.jsonl", data) == [
        Passage("p1", "One.", "T", "http://x", metadata={"year": 1999, "tags": ("a",)}),
        Passage("faq.jsonl#2", "Two.", "", "faq.jsonl"),
    ]


def test_long_rows_are_not_cut_unless_asked(tmp_path: Path) -> None:
    data = json.dumps({"id": "p", "text": "One two. Three four."}).encode()
    assert [passage.text for passage in read(tmp_path / "a.jsonl", data)] == ["One two. Three four."]
    options = ReadOptions(ChunkOptions(words=2), cut_rows=True)
    assert [(passage.id, passage.text) for passage in read(tmp_path / "a.jsonl", data, options)] == [
        ("p#0", "One two."),
        ("p#9", "Three four."),
    ]


def test_csv_cells_may_hold_line_breaks_and_delimiters(tmp_path: Path) -> None:
    [passage] = read(tmp_path / "a.csv", b'title,text\r\nT,"One, two\nthree ""four"""\r\n')
    assert (passage.title, passage.text, passage.id) == ("T", 'One, two\nthree "four"', "a.csv#1")


def test_compressed_and_tab_separated_rows_are_read(tmp_path: Path) -> None:
    data = gzip.compress(b"id\ttext\ttitle\n1\tAaron was a prophet.\tAaron\n")
    assert read(tmp_path / "psgs_w100.tsv.gz", data) == [
        Passage("1", "Aaron was a prophet.", "Aaron", "psgs_w100.tsv.gz")
    ]


def test_only_declared_columns_become_metadata(tmp_path: Path) -> None:
    options = ReadOptions(metadata_columns=(MetadataColumn("year", "int"), MetadataColumn("place")))
    [passage] = read(tmp_path / "a.csv", b"text,year,place,other\nOne.,1999,,x\n", options)
    assert passage.metadata == {"year": 1999}


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.jsonl", b'{"text": "ok"}\n{"text": }', "row 2: not JSON"),
        ("a.jsonl", b"[1]", "row 1: not a JSON object"),
        ("a.jsonl", b'{"title": "no text"}', "row 1: `text` is missing or blank"),
        ("a.jsonl", b'{"text": " "}', "row 1: `text` is missing or blank"),
        ("a.jsonl", b'{"text": 5}', "row 1: `text` is not a string: 5"),
        ("a.jsonl", b'{"text": "a", "id": 1.5}', "row 1: `id` is not a string"),
        ("a.jsonl", b'{"text": "half \\ud800"}', "row 1: .*surrogates not allowed"),
        ("a.jsonl", b'{"id": 7, "text": "a"}\n{"id": "7", "text": "b"}', "row 2: the id '7' was there before"),
        ("a.jsonl", b'{"text": "a", "metadata": {"deep": {"er": 1}}}', "row 1: metadata field 'deep'"),
        ("a.jsonl", b'{"text": "a"}\n\xff', "not UTF-8: byte 0xff at offset 14"),
        ("a.jsonl", b"\n", "holds no rows"),
        ("a.csv", b"title,body\na,b\n", "no column `text`: title, body"),
        ("a.csv", b"", "no column `text`"),
        ("a.csv", b"text\n", "holds no rows"),
        ("a.csv", b"text,title\na,b,c\n", "row 1: more cells"),
        ("a.csv", b'text\n"never closed', "line 1: unexpected end of data"),
        ("a.csv.gz", b"not gzip", "damaged: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-12], "damaged"),
    ],
)
def test_bad_rows_are_refused_with_their_place(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    with pytest.raises(UnreadableFile, match=why):
        read(tmp_path / name, data)


def test_a_cell_that_is_not_of_its_declared_type_is_refused(tmp_path: Path) -> None:
    options = ReadOptions(metadata_columns=(MetadataColumn("year", "int"),))
    with pytest.raises(UnreadableFile, match="row 1: invalid literal for int"):
        read(tmp_path / "a.csv", b"text,year\nOne.,soon\n", options)


@pytest.mark.parametrize("declaration", ["", ":int", "year:date"])
def test_a_misdeclared_metadata_column_is_refused(declaration: str) -> None:
    with pytest.raises(ValueError, match="expected NAME or NAME:TYPE"):
        MetadataColumn.parse(declaration)


def test_declared_metadata_columns_are_parsed() -> None:
    assert MetadataColumn.parse("year:int") == MetadataColumn("year", "int")
    assert MetadataColumn.parse("place") == MetadataColumn("place", "string")
