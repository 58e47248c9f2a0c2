import gzip
import json

import pytest

from evaluation.datasets import Gold, Question, Target, read_questions
from rag_client import Passage, Turn


def write(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_questions_are_read_with_every_way_of_saying_where_the_answer_stands(tmp_path):
    path = write(
        tmp_path / "questions.jsonl",
        {"id": "1", "question": "q1", "answers": ["a", "b"], "passage_id": "p1"},
        {"id": "2", "question": "q2", "answers": ["a"], "passage_ids": ["p1", "p2"]},
        {"id": "3", "question": "q3", "answers": ["a"], "source": "x.md", "section": "S", "kind": "paraphrase"},
        {"id": "4", "question": "q4", "answers": [], "source": None, "section": None, "kind": "unanswerable"},
        {"id": "5", "question": "q5", "answer_regex": "19\\d\\d"},
        {"id": 6, "question": "q6", "label": "REFUTES", "hops": 2, "is_new": True, "context": "long " * 50, "x": [1]},
    )
    questions = read_questions(path)
    assert questions == [
        Question("1", "q1", ("a", "b"), gold=Gold(frozenset({"p1"}))),
        Question("2", "q2", ("a",), gold=Gold(frozenset({"p1", "p2"}))),
        Question(
            "3", "q3", ("a",), gold=Gold(source="x.md", section="S"), tags={"source": "x.md", "kind": "paraphrase"}
        ),
        Question("4", "q4", tags={"kind": "unanswerable"}),
        Question("5", "q5", answer_regex="19\\d\\d"),
        Question("6", "q6", label="REFUTES", tags={"label": "REFUTES", "hops": "2", "is_new": "true"}),
    ]
    assert [each.target for each in questions] == [Target.STRINGS] * 3 + [Target.NONE, Target.REGEX, Target.LABEL]
    assert [each.golds for each in questions[3:]] == [(), ("19\\d\\d",), ("REFUTES",)]


def test_compressed_questions_are_read_alike(tmp_path):
    path = tmp_path / "questions.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps({"id": "1", "question": "Ünïcode?", "answers": ["ä"]}) + "\n")
    assert read_questions(path) == [Question("1", "Ünïcode?", ("ä",))]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ('{"id": "2"}', "question: Field required"),
        ('{"id": "2", "question": ""}', "question: String should have at least 1 character"),
        ('{"id": "2", "question": "q", "answers": "Paris"}', "answers: Input should be a valid array"),
        ('{"id": "2", "question": "q", "answers": ["a", null]}', "answers.1: Input should be a valid string"),
        ('{"id": "2", "question": "q", "answer_regex": "("}', r"answer_regex: missing \)"),
        ('{"id": "2", "question": "q", "answers": ["a"], "label": "b"}', "label: not together with answers"),
        ('{"id": "2", "question": "q", "anwsers": ["a"]}', "anwsers: did you mean answers?"),
        ('{"id": "1", "question": "again"}', "id '1' comes twice"),
    ],
)
def test_a_line_that_is_no_question_is_told_with_its_number_and_field(tmp_path, bad, why):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"id": "1", "question": "q"}\n' + bad, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"line 2: .*{why}"):
        read_questions(path)


@pytest.mark.parametrize(
    ("source", "title", "is_gold"),
    [
        ("capitals.md", "Paris", True),
        ("kb/capitals.md", "Capitals of Europe: Paris", True),
        ("kb/capitals.md", "Capitals of Europe: New Paris", False),
        ("kb/old_capitals.md", "Paris", False),
        ("kb/cities.md", "Paris", False),
    ],
)
def test_a_section_is_found_by_the_ends_of_source_and_title(source, title, is_gold):
    gold = Gold(source="capitals.md", section="Paris")
    assert gold.flags([Passage("id", "text", title=title, source=source)]) == [is_gold]


def test_of_a_section_cut_into_pieces_the_first_one_found_counts_alone():
    gold = Gold(source="a.md", section="S")
    pieces = [Passage("1", "t", source="b.md"), *(Passage(str(i), "t", "S", "a.md") for i in (2, 3))]
    assert gold.flags(pieces) == [False, True, False]
    assert gold.num_passages == 1


def test_passages_named_by_id_all_count():
    gold = Gold(frozenset({"1", "3"}))
    assert gold.flags([Passage(str(i), "t") for i in (1, 2, 3)]) == [True, False, True]
    assert gold.num_passages == 2


def test_a_question_may_have_turns_before_it(tmp_path):
    turns = [{"role": "user", "text": "Who is Ann?"}, {"role": "assistant", "text": "A miller."}]
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"id": "1", "question": "Where is she?", "history": turns}) + "\n")
    (question,) = read_questions(path)
    assert question.history == (Turn("user", "Who is Ann?"), Turn("assistant", "A miller."))
    path.write_text(json.dumps({"id": "1", "question": "Where is she?", "history": ["Who is Ann?"]}) + "\n")
    with pytest.raises(ValueError, match=r"line 1: not a question: history\.0"):
        read_questions(path)
