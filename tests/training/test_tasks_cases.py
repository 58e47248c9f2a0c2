"""The cases of the tasks beyond question answering are what they claim to be."""

import random

import pytest

from gateway.prompts import Turn
from generator_service.task_prompts import task_prompts
from training.retriever.data import Passage
from training.tasks.cases import LABELS, NOT_ENOUGH, REFUTED, REWRITING, SUPPORTED, VERIFICATION, Case, rag_tasks
from training.tasks.claims import ClaimMaker, abstract_claim, statement
from training.tasks.dialogues import dialogue, mention_in, shortened
from training.tasks.sources import Abstract, Known, by_passage, sentences
from training.tasks.summaries import answering_sentence, conclusion, gap_sentence

TEXT = "The Old Mill was built in 1720. Anna Reed owned it. In 1745 it burned down, and Tom Hale rebuilt the Old Mill."
MILL = Passage("p-1", "Old Mill", TEXT)
BRIDGE = Passage("p-2", "Stone Bridge", "The bridge crosses the river.")
KNOWN = [
    Known("q1", "When was the Old Mill built?", "1720", MILL),
    Known("q2", "When did the Old Mill burn down?", "1745", MILL),
    Known("q3", "Who owned the Old Mill?", "Anna Reed", MILL),
    Known("q4", "Who rebuilt the Old Mill?", "Tom Hale", MILL),
]


def test_the_gateway_and_the_generator_service_read_what_a_checkpoint_says_of_its_tasks():
    prompts = {prompt.task: prompt for prompt in task_prompts({"rag_tasks": rag_tasks()})}
    assert prompts[VERIFICATION].labels == LABELS
    history = (Turn("user", "Who is Ann?"), Turn("assistant", "A miller."))
    case = Case(REWRITING, "Where is she?", "Where is Ann?", history=history)
    assert case.prompt == "rewrite: user: Who is Ann? assistant: A miller. ||| Where is she?"
    assert case.prompt == prompts[REWRITING].template.format(
        history="user: Who is Ann? assistant: A miller.", question="Where is she?"
    )


@pytest.mark.parametrize(
    ("question", "answer", "claim"),
    [
        ("Who owned the Old Mill?", "Anna Reed", "Anna Reed owned the Old Mill."),
        ("When was the Old Mill built?", "1720", "The Old Mill was built in 1720."),
        ("When did the mill burn down?", "in 1745", "The mill burn down in 1745."),
        ("What is the capital of France?", "Paris", "The capital of France is Paris."),
        ("What is the paper called?", "The Observer", "The paper is called The Observer."),
        ("How many mills are on the river?", "three", "Three mills are on the river."),
        ("Why did it burn?", "a storm", None),
    ],
)
def test_a_question_with_its_answer_becomes_a_statement_where_a_rule_fits(question, answer, claim):
    assert statement(question, answer) == claim


def test_a_supported_claim_has_the_right_answer_and_a_refuted_one_another_of_its_kind():
    maker, rng = ClaimMaker(KNOWN, {}), random.Random(0)
    for known, wrong in zip(KNOWN, ("1745", "1720", "Tom Hale", "Anna Reed"), strict=True):
        supported, refuted = maker.draw(known, SUPPORTED, rng), maker.draw(known, REFUTED, rng)
        assert supported is not None
        assert refuted is not None
        assert known.answer in supported.question
        assert wrong in refuted.question
        assert known.answer not in refuted.question
        assert (supported.target, refuted.target) == (SUPPORTED, REFUTED)
        assert supported.text == refuted.text == TEXT


def test_not_enough_information_comes_with_a_passage_that_does_not_tell_and_with_right_and_wrong_answers():
    maker = ClaimMaker(KNOWN, {"q3": [BRIDGE]})
    drawn = [maker.draw(KNOWN[2], NOT_ENOUGH, random.Random(seed)) for seed in range(20)]
    assert {case.text for case in drawn if case} == {BRIDGE.text}
    assert {"Anna Reed" in case.question for case in drawn if case} == {True, False}
    assert maker.draw(KNOWN[0], NOT_ENOUGH, random.Random(0)) is None


def test_a_pubmed_question_is_a_claim_about_its_abstract():
    abstract = Abstract("1", "Does tea help?", "We gave tea to forty people.", "Tea did not help.", "no")
    assert abstract_claim(abstract).target == REFUTED
    assert conclusion(abstract).target == "Tea did not help."


def test_what_the_turns_before_named_is_found_with_its_determiner():
    question = "Who rebuilt the Old Mill?"
    start, end = mention_in(question, "When was the Old Mill built?") or (0, 0)
    assert question[start:end] == "the Old Mill"
    assert mention_in(question, "When was the bridge built?") is None
    assert mention_in("In what year did it open?", "In what year did the mill close?") is None


@pytest.mark.parametrize(
    ("question", "earlier", "short"),
    [
        ("Who owned the Old Mill?", "When was the Old Mill built?", {"Who owned it?"}),
        ("What was the Old Mill's use?", "Who owned the Old Mill?", {"What was its use?"}),
        (
            "Who was the owner of the Old Mill?",
            "When was the Old Mill built?",
            {"Who was the owner of it?", "Who was the owner?", "Who was its owner?"},
        ),
        ("How many sons did Anna Reed have?", "Who was Anna Reed?", {"How many sons did she have?"}),
    ],
)
def test_a_shortened_question_leaves_unsaid_what_was_named(question, earlier, short):
    passage = "She was born here. She owned a mill." if "Anna" in question else TEXT
    drawn = {shortened(question, earlier, passage, random.Random(seed)) for seed in range(40)}
    assert drawn == short


def test_a_dialogue_gives_back_the_question_as_it_was_and_only_what_hangs_on_its_history():
    (turns,) = by_passage(KNOWN)
    drawn = [dialogue(turns, 3, random.Random(seed)) for seed in range(40)]
    assert {case.target for case in drawn if case} == {"Who rebuilt the Old Mill?"}
    assert {case.question for case in drawn if case} == {"Who rebuilt it?", "Who rebuilt the Old Mill?"}
    history = drawn[0].history if drawn[0] else ()
    assert [turn.role for turn in history] == ["user", "assistant"] * 3
    assert history[0].text == "When was the Old Mill built?"
    assert history[4].text == "Who owned it?"
    strangers = [KNOWN[0], Known("q9", "Which king ruled Spain?", "Philip", BRIDGE)]
    assert dialogue(strangers, 1, random.Random(1)) is None


def test_the_sentence_that_answers_is_the_summary_a_question_asks_for():
    case = answering_sentence(KNOWN[1])
    assert case is not None
    assert case.target == "In 1745 it burned down, and Tom Hale rebuilt the Old Mill."
    assert answering_sentence(KNOWN[2]) is None  # Four words are no summary.


def test_the_gap_sentence_shares_most_with_the_rest():
    text = "Crops failed that year. The mill by the river burned down in the dry year. The river was dry."
    case = gap_sentence(Passage("p", "Mill", text))
    assert case is not None
    assert case.target == sentences(text)[1]
    assert gap_sentence(Passage("p", "", text)) is None
