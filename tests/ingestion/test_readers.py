import io
from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from fpdf import FPDF
from fpdf.enums import AccessPermission

from ingestion.chunker import ChunkOptions
from ingestion.document import Document
from ingestion.errors import UnreadableFile
from ingestion.passages import Passage, cut_document
from ingestion.reading import read_document

MARKDOWN = b"""# Capitals

Preface with a [link](http://example.com) and `code`.

## Asia

**Tokyo** is the capital of Japan
and lies on Honshu.

- one item
- another *item*

### Facts

| city | country |
|------|---------|
| Tokyo | Japan |

## Europe

<!-- a comment -->
Paris is the capital of France.

```
x = 1
```
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, bytes], Document]:
    def write_and_read(name: str, data: bytes) -> Document:
        path = tmp_path / name
        path.write_bytes(data)
        return read_document(path)

    return write_and_read


Read = Callable[[str, bytes], Document]


def sections(document: Document) -> dict[str, str]:
    return {section.title: document.text[section.start : section.end] for section in document.sections}


def passages(document: Document, words: int = 100) -> list[Passage]:
    return list(cut_document(document, "a.md", ChunkOptions(words)))


def make_pdf(*pages: str, title: str = "", password: str = "") -> bytes:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    if title:
        pdf.set_title(title)
    if password:
        pdf.set_encryption(owner_password="owner", user_password=password, permissions=AccessPermission.none())
    for page in pages:
        pdf.add_page()
        pdf.multi_cell(0, text=page)
    return bytes(pdf.output())


def make_docx() -> bytes:
    document = docx.Document()
    document.add_heading("The Atlas", level=0)
    document.add_paragraph("Some words before.")
    document.add_heading("Rivers", level=1)
    document.add_paragraph("The Nile is long.")
    document.add_paragraph("The Rhine is shorter.", style="List Bullet")
    document.add_heading("Lakes", level=1)
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["lake", "area", "Ladoga", "17,700"], strict=True):
        cell.text = text
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_markdown_headings_make_sections_and_markup_is_dropped(read: Read) -> None:
    assert sections(read("capitals.md", MARKDOWN)) == {
        "Capitals": "Preface with a link and code.",
        "Capitals: Asia": "Tokyo is the capital of Japan and lies on Honshu.\none item\nanother item",
        "Capitals: Asia: Facts": "city | country\nTokyo | Japan",
        "Capitals: Europe": "Paris is the capital of France.\n\nx = 1",
    }


def test_no_passage_runs_over_a_heading_and_each_stands_where_it_says(read: Read) -> None:
    document = read("capitals.md", MARKDOWN)
    cut = passages(document)
    assert [passage.title for passage in cut] == [section.title for section in document.sections]
    for passage in cut:
        assert document.text[passage.start : passage.end] == passage.text
        assert passage.id == f"a.md#{passage.start}"


def test_two_readings_of_a_file_give_equal_passages(read: Read) -> None:
    assert passages(read("a.md", MARKDOWN), words=3) == passages(read("a.md", MARKDOWN), words=3)


def test_front_matter_titles_a_markdown_file_with_several_top_headings(read: Read) -> None:
    document = read("a.md", b"---\ntitle: Manual\n---\nIntro.\n\n# Start\n\nText.\n\n# Stop\n\nMore.\n")
    assert list(sections(document)) == ["Manual", "Manual: Start", "Manual: Stop"]


def test_markdown_without_headings_is_titled_by_its_file_name(read: Read) -> None:
    assert list(sections(read("some_notes.md", b"Just text."))) == ["some notes"]


def test_a_heading_without_text_makes_no_passage(read: Read) -> None:
    assert list(sections(read("a.md", b"# A\n\n## Empty\n\n## Full\n\nText."))) == ["A: Full"]


def test_html_sections_are_read_without_scripts_and_navigation(read: Read) -> None:
    html = """<html><head><title>Site - Atlas</title><style>p {}</style></head><body><nav>Home | About</nav>
    <main><h1>The  Atlas</h1><p>Some <b>bold</b> words<br>and more.<h2>Rivers</h2><div>The <a href=x>Nile</a> is long.
    <ul><li>one</li><li>two</li></ul></div><!-- hidden --><script>alert(1)</script>
    <table><tr><th>lake</th><th>area</th></tr><tr><td>Ladoga</td><td>17,700</td></tr></table></main>
    <footer>Imprint</footer></body></html>"""
    assert sections(read("atlas.html", html.encode())) == {
        "The Atlas": "Some bold words\nand more.",
        "The Atlas: Rivers": "The Nile is long.\none\ntwo\nlake | area\nLadoga | 17,700",
    }


def test_html_is_decoded_as_it_declares(read: Read) -> None:
    html = '<meta charset="iso-8859-1"><title>Café</title><p>Élan vital'.encode("latin-1")
    assert sections(read("a.htm", html)) == {"Café": "Élan vital"}


def test_html_that_is_not_in_the_declared_encoding_is_refused(read: Read) -> None:
    with pytest.raises(UnreadableFile, match="encoding that it declares"):
        read("a.html", b'<meta charset="ascii"><p>\xff')


def test_word_headings_make_sections(read: Read) -> None:
    assert sections(read("atlas.docx", make_docx())) == {
        "The Atlas": "Some words before.",
        "The Atlas: Rivers": "The Nile is long.\nThe Rhine is shorter.",
        "The Atlas: Lakes": "lake | area\nLadoga | 17,700",
    }


def test_pdf_passages_know_their_page(read: Read) -> None:
    document = read("a.pdf", make_pdf("The Nile is a river.", "", "Ladoga is a lake in Russia.", title="Waters"))
    assert document.title == "Waters"
    assert [(passage.text, passage.page) for passage in passages(document, words=6)] == [
        ("The Nile is a river.", 1),
        ("Ladoga is a lake in Russia.", 3),
    ]


def test_a_pdf_sentence_runs_over_a_page_break_and_hyphenation_is_joined(read: Read) -> None:
    document = read("a.pdf", make_pdf("It is an exam-\nple that goes", "on to the next page."))
    assert [(passage.text, passage.page) for passage in passages(document)] == [
        ("It is an example that goes on to the next page.", 1)
    ]


def test_plain_text_is_unwrapped_without_moving_a_character(read: Read) -> None:
    text = "This first line is long enough to have been wrapped by hand\nand goes on here.\n\n- one\n- two\nEnd"
    document = read("notes.txt", text.encode())
    assert len(document.text) == len(text)
    assert document.text == text.replace("hand\nand", "hand and")


def test_text_with_a_byte_order_mark_and_windows_line_ends_is_read(read: Read) -> None:
    assert read("a.txt", b"\xef\xbb\xbfOne.\r\nTwo.\r\n").text == "One.\nTwo."


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.txt", b"good \xff bad", "not UTF-8: byte 0xff at offset 5"),
        ("a.md", b"caf\xe9", "not UTF-8: byte 0xe9 at offset 3"),
        ("a.txt", b"", "holds no text"),
        ("a.md", b"# Only\n\n## Headings\n", "holds headings, but no text"),
        ("a.html", b"<script>x</script>", "holds no text"),
        ("a.docx", b"PK\x03\x04 torn", "not a readable Word document"),
        ("a.docx", make_docx()[:2000], "not a readable Word document"),
        ("a.pdf", b"%PDF-1.7 torn", "not a readable PDF"),
        ("a.pdf", b"not one at all", "not a readable PDF"),
        ("a.pdf", make_pdf("", ""), "no text on its 2 pages"),
        ("a.xyz", b"text", "'.xyz' are not supported"),
    ],
)
def test_unreadable_files_are_refused_with_the_reason(read: Read, name: str, data: bytes, why: str) -> None:
    with pytest.raises(UnreadableFile, match=why):
        read(name, data)


def test_an_encrypted_pdf_is_refused(read: Read) -> None:
    with pytest.raises(UnreadableFile, match="encrypted"):
        read("a.pdf", make_pdf("Secret.", password="secret"))
