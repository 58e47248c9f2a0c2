import numpy as np
import pytest

from training.retriever.batches import BatchStream
from training.retriever.data import Passage, Question
from training.retriever.mining import Answering, lexical_index, mine_dense, mine_lexical
from training.retriever.ranking import gold_ranks, metrics_of

QUESTIONS = [Question(f"q{i}", f"text {i}", ("x",), i // 3) for i in range(60)]
MINED = [[(question.passage + step) % 20 for step in (10, 11)] for question in QUESTIONS]


@pytest.fixture
def make_stream():
    def make(*, num_negatives=1, seed=0):
        return BatchStream(QUESTIONS, MINED, batch_size=12, num_negatives=num_negatives, seed=seed)

    return make


def test_every_question_comes_once_an_epoch_and_each_epoch_has_its_own_order(make_stream):
    stream = make_stream()
    epochs = [[place for n in range(first, first + 5) for place in stream.batch(n).questions] for first in (0, 5)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(60))] * 2
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_its_number_alone(make_stream):
    expected = [make_stream().batch(n) for n in range(10)]
    stream = make_stream()
    assert [stream.batch(n) for n in reversed(range(10))] == expected[::-1]
    assert make_stream(seed=1).batch(0) != expected[0]


def test_each_question_finds_its_own_passage_in_the_batch_and_none_is_there_twice(make_stream):
    for number in range(5):
        batch = make_stream().batch(number)
        own = [batch.passages[place] for place in batch.positives]
        assert own == [QUESTIONS[place].passage for place in batch.questions]
        assert len(set(batch.passages)) == len(batch.passages)


def test_a_batch_holds_mined_negatives_and_passages_near_each_other_come_together(make_stream):
    plain, mined = make_stream(num_negatives=0).batch(0), make_stream(num_negatives=2).batch(0)
    own = {QUESTIONS[place].passage for place in plain.questions}
    assert set(plain.passages) == own
    assert {(passage + 10) % 20 for passage in own} <= set(mined.passages)
    assert any((passage + 10) % 20 in own for passage in own)


def test_too_few_questions_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="60 questions do not fill a batch of 61"):
        BatchStream(QUESTIONS, MINED, batch_size=61, num_negatives=0, seed=0)


PASSAGES = [
    Passage("a", "Rivers", "The Rhine flows through Basel."),
    Passage("b", "Rivers", "The Rhine is long."),
    Passage("c", "Rivers", "Cologne lies on the Rhine, Basel does too."),
    Passage("d", "Bread", "Flour and water."),
]
ASKED = [Question("q", "Through which city does the Rhine flow?", ("basel",), 0)]


def test_mining_leaves_out_the_own_passage_and_those_that_hold_an_answer():
    answering = Answering(PASSAGES)
    assert answering.flags(ASKED[0], range(4)) == [True, False, True, False]
    with lexical_index(PASSAGES) as index:
        assert mine_lexical(index, ASKED, answering) == [[1]]
    vectors = np.eye(4, dtype=np.float32)
    asked = np.array([[0.1, 0.2, 0.3, 0.9]], np.float32)
    assert mine_dense(ASKED, asked, vectors, answering) == [[3, 1]]


def test_ties_rank_in_order_of_place():
    scores = np.array([[1.0, 3.0, 3.0, 2.0]] * 3)
    ranks = gold_ranks(scores, np.array([1, 2, 0]))
    assert ranks.tolist() == [1, 2, 4]
    assert {name: values.tolist() for name, values in metrics_of(ranks).items()} == {
        "recall@1": [1, 0, 0],
        "recall@5": [1, 1, 1],
        "recall@20": [1, 1, 1],
        "MRR": [1, 1 / 2, 1 / 4],
    }
