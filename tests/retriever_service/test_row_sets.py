import numpy as np
import pytest

from retriever_service.batch import Batch, EncodedPassage
from retriever_service.collection import Passage
from retriever_service.filters import Condition
from retriever_service.row_sets import RowSets
from retriever_service.store import Store
from retriever_service.writing import Writer

ODD = Condition("p.row % 2 = ?", (1,))


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store.sqlite")
    yield store
    store.close()


def write(store, *texts):
    vector = np.ones(2, np.float32)
    Writer(store, {}).write(Batch([EncodedPassage(Passage(text, "", text), vector) for text in texts]))


def matching(store, statements=None):
    with store.reading() as reader:
        if statements is not None:
            store.connection().set_trace_callback(statements.append)
        return sorted(reader.matching_rows(ODD, 100).tolist())


def test_a_filter_is_resolved_once_until_something_is_written(store):
    write(store, "a", "b", "c")
    assert matching(store) == [1, 3]
    statements = []
    assert matching(store, statements) == [1, 3]
    assert not [one for one in statements if "FROM passages" in one]
    write(store, "d", "e")
    assert matching(store) == [1, 3, 5]


def test_it_holds_no_more_than_it_may_and_forgets_the_oldest_first():
    rows = np.arange(100)
    sets = RowSets(max_bytes=3_000)
    for sequence in range(5):
        sets.put(ODD, 10, sequence, rows.copy())
        sets.get(ODD, 10, 0)
    assert sets.num_bytes <= 3_000
    assert [sets.get(ODD, 10, sequence) is not None for sequence in range(5)] == [True, False, False, False, True]
    sets.put(ODD, 10, 9, np.arange(10_000))
    assert sets.get(ODD, 10, 9) is None
