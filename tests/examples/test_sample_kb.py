"""Checks on the sample knowledge base and its frozen question set."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KB_DIR = EXAMPLES / "sample_kb"
QUESTIONS_DIR = EXAMPLES / "sample_questions"
QUESTIONS_FILE = QUESTIONS_DIR / "questions.jsonl"
KINDS = {"verbatim", "paraphrase", "unanswerable"}
FIELDS = {"id", "question", "answers", "source", "section", "kind"}


def read_sections(path: Path) -> list[tuple[str, str]]:
    """Return the (heading, paragraph) pairs of one document."""
    head, *parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert re.fullmatch(r"# \S[^\n]*\n+", head), f"{path.name}: expected one title line before the first section"
    sections: list[tuple[str, str]] = []
    for part in parts:
        heading, _, body = part.partition("\n")
        sections.append((heading.strip(), body.strip()))
    return sections


@pytest.fixture(scope="module")
def kb() -> dict[str, list[tuple[str, str]]]:
    return {path.name: read_sections(path) for path in sorted(KB_DIR.glob("*.md"))}


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in QUESTIONS_FILE.read_text(encoding="utf-8").splitlines()]


def test_folder_holds_only_documents() -> None:
    assert [p.name for p in KB_DIR.rglob("*") if p.is_dir() or p.suffix != ".md"] == []


def test_passage_counts(kb: dict[str, list[tuple[str, str]]]) -> None:
    assert 20 <= len(kb) <= 30
    assert sum(len(sections) for sections in kb.values()) >= 300


def test_sections_are_one_plain_paragraph_of_40_to_95_words(kb: dict[str, list[tuple[str, str]]]) -> None:
    bad: list[str] = []
    for name, sections in kb.items():
        for heading, body in sections:
            words = len(body.split())
            if not 40 <= words <= 95:
                bad.append(f"{name} / {heading}: {words} words")
            if "\n" in body or re.search(r"https?://|\]\(|^[-*|>#]", body):
                bad.append(f"{name} / {heading}: not plain prose")
    assert bad == []


def test_section_headings_are_unique_within_a_file(kb: dict[str, list[tuple[str, str]]]) -> None:
    for name, sections in kb.items():
        repeated = [heading for heading, count in Counter(h for h, _ in sections).items() if count > 1]
        assert repeated == [], name


def test_no_two_passages_are_equal(kb: dict[str, list[tuple[str, str]]]) -> None:
    bodies = [body for sections in kb.values() for _, body in sections]
    assert len(set(bodies)) == len(bodies)


def test_question_counts(questions: list[dict[str, Any]]) -> None:
    kinds = Counter(q["kind"] for q in questions)
    assert len(questions) == 120
    assert set(kinds) == KINDS
    assert kinds["paraphrase"] * 3 >= len(questions)
    assert kinds["unanswerable"] >= 15


def test_question_fields(questions: list[dict[str, Any]]) -> None:
    for q in questions:
        assert set(q) == FIELDS, q["id"]
        assert q["question"].endswith("?"), q["id"]
        assert all(isinstance(a, str) and a.strip() == a != "" for a in q["answers"]), q["id"]
        assert len(set(q["answers"])) == len(q["answers"]), q["id"]


def test_ids_and_questions_are_unique(questions: list[dict[str, Any]]) -> None:
    assert len({q["id"] for q in questions}) == len(questions)
    assert len({q["question"].lower() for q in questions}) == len(questions)


def test_first_answer_stands_in_the_gold_section(
    kb: dict[str, list[tuple[str, str]]], questions: list[dict[str, Any]]
) -> None:
    for q in questions:
        if q["kind"] == "unanswerable":
            continue
        body = dict(kb[q["source"]])[q["section"]]
        assert q["answers"], q["id"]
        assert re.search(rf"(?<!\w){re.escape(q['answers'][0])}(?!\w)", body), q["id"]


def test_unanswerable_questions_have_no_gold(questions: list[dict[str, Any]]) -> None:
    for q in questions:
        if q["kind"] == "unanswerable":
            assert (q["answers"], q["source"], q["section"]) == ([], None, None), q["id"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of France?", "Paris"),
        ("Who won the World Series in 2020?", "Los Angeles Dodgers"),
    ],
)
def test_named_questions_exist(questions: list[dict[str, Any]], question: str, answer: str) -> None:
    found = [q for q in questions if q["question"] == question]
    assert len(found) == 1
    assert found[0]["answers"][0] == answer


def test_question_file_is_frozen() -> None:
    recorded, name = (QUESTIONS_DIR / "questions.sha256").read_text(encoding="utf-8").split()
    assert name == QUESTIONS_FILE.name
    assert hashlib.sha256(QUESTIONS_FILE.read_bytes()).hexdigest() == recorded
