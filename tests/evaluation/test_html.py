import base64
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from evaluation.datasets import Target
from evaluation.html import MAX_CHARS, MAX_WORST, make_html, worst
from evaluation.report import make_report
from evaluation.results import Cited, Result, Run

EVIL = "<script>alert('x')</script> & \" <img src=http://x/y.png onerror=z>"
VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def evil_result(number, **fields):
    cited = Cited(EVIL, EVIL, EVIL, EVIL + "y" * 5000, prior=0.25, posterior=0.75, is_gold=True, has_answer=False)
    given = {"text": EVIL, "is_answered": True, "confidence": number / 1000, "provenance": {"generator": EVIL}} | fields
    return Result(
        f"{number}", f"{EVIL} {number}", Target.STRINGS, (EVIL * 2,), {EVIL[:60]: EVIL[:60]}, cited=(cited,) * 10,
        gold_flags=[False, True], num_gold=1, answer_flags=[True, False], latency_seconds=0.1 + number / 100,
        stage_seconds={EVIL: 0.1}, **given,
    )  # fmt: skip


def page_of(run):
    text = make_html(run, make_report(run))
    return text, Page(text)


@pytest.fixture(scope="module")
def page():
    return page_of(Run({"questions": EVIL, "depth": 5, EVIL: EVIL}, [evil_result(i, text="wrong") for i in range(60)]))


def test_nothing_that_users_wrote_becomes_markup(page):
    _, parsed = page
    assert "script" not in parsed.tags
    assert not {name for name, _ in parsed.attributes} & {"onerror", "onclick"}
    assert any("alert('x')" in text for text in parsed.texts)


def test_the_page_loads_nothing(page):
    _, parsed = page
    links = [value for name, value in parsed.attributes if name in ("src", "href", "srcset", "action")]
    assert links
    assert all(value.startswith("data:image/svg+xml;base64,") for value in links)
    assert "link" not in parsed.tags
    assert any("default-src 'none'" in value for name, value in parsed.attributes if name == "content")


def test_every_plot_is_a_picture_that_can_be_read(page):
    _, parsed = page
    pictures = [value for name, value in parsed.attributes if name == "src"]
    assert len(pictures) == 4  # recall@k, reliability, risk-coverage, latency
    for each in pictures:
        assert ElementTree.fromstring(base64.b64decode(each.partition(",")[2])).tag.endswith("svg")


def test_the_worst_questions_come_with_their_passages_and_the_size_is_bounded(page):
    text, parsed = page
    assert parsed.tags.count("details") == MAX_WORST
    assert "rank 2" in " ".join(parsed.texts)
    assert "0.750" in parsed.texts
    assert "y" * (MAX_CHARS + 1) not in text
    assert len(text) < 2_000_000


def test_the_surest_wrong_answers_are_worst_and_failed_calls_last():
    results = [
        evil_result(1, text=EVIL * 2),
        evil_result(2),
        evil_result(3),
        evil_result(4, text="", is_answered=False),
        evil_result(5, text="", is_answered=False, error="late"),
    ]
    assert [result.id for result in worst(results)] == ["3", "2", "4", "5"]


@pytest.mark.parametrize(
    "results",
    [
        [],
        [Result("1", "q", Target.NONE)],
        [Result("1", "q", Target.LABEL, ("REFUTES",), error="late")],
        [evil_result(1, text=EVIL * 2)],
    ],
)
def test_a_run_with_little_in_it_is_reported_on_all_the_same(results):
    page_of(Run({"questions": "q.jsonl"}, results))
