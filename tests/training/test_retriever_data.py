"""What a retriever is trained on."""

from training.retriever.data import Corpus, Passage, Question, with_sentences


def test_questions_are_asked_of_their_answers_sentences_too():
    text = "Ducks eat bread. In spring ducks eat grass. Geese do not."
    passages = (Passage("p", "Ducks", text), Passage("q", "Whole", "One sentence with bread"))
    asked = (
        Question("a", "what do ducks eat in spring", ("grass",), 0),
        Question("b", "what else do ducks eat", ("bread",), 0),
        Question("c", "what is eaten in winter", ("acorns",), 0),
        Question("d", "what is there", ("bread",), 1),
        Question("e", "when do ducks eat grass", ("spring",), 0),
    )
    held_out = (Question("h", "who does not", ("Geese",), 0),)
    found = with_sentences(Corpus(passages, asked, held_out))
    assert found.passages[:2] == passages
    assert [(one.title, one.text) for one in found.passages[2:]] == [
        ("Ducks", "In spring ducks eat grass."), ("Ducks", "Ducks eat bread."),
    ]  # fmt: skip
    assert [(one.id, one.passage) for one in found.questions[5:]] == [("a", 2), ("b", 3), ("e", 2)]
    assert found.questions[:5] == asked
    assert found.held_out == held_out


def test_of_several_sentences_with_the_answer_the_one_that_is_asked_about_counts():
    passage = Passage("p", "", "Bread is baked. Ducks eat bread in parks. Bread is cheap.")
    found = with_sentences(Corpus((passage,), (Question("a", "what do Ducks eat in parks", ("read",), 0),)))
    assert found.passages[found.questions[-1].passage].text == "Ducks eat bread in parks."
