import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_service import candidates
from retriever_service.batch import Batch, EncodedPassage
from retriever_service.collection import FieldType, LexicalScoring, Passage
from retriever_service.dense.exact import ExactIndex
from retriever_service.filters import AllOf, AnyOf, Equals, In, Not, Range, compile_filter
from retriever_service.fusion import Fusion
from retriever_service.lexical_index import LexicalIndex
from retriever_service.reranking import reranked
from retriever_service.search import Mode, Plan, Search, SearchQuery
from retriever_service.store import Store
from retriever_service.writing import Writer
from serving.errors import InvalidRequest

FIELDS = {"year": FieldType.INT, "score": FieldType.DOUBLE, "kind": FieldType.STRING, "seen": FieldType.BOOL}
KINDS = ["a", "b", "é", "Z", ""]
OPERATORS = {
    "greater_than": lambda value, bound: value > bound,
    "greater_or_equal": lambda value, bound: value >= bound,
    "less_than": lambda value, bound: value < bound,
    "less_or_equal": lambda value, bound: value <= bound,
}


def make_passages():
    rng = np.random.default_rng(0)
    for i in range(160):
        metadata = {
            "year": int(rng.integers(-3, 4)),
            "score": float(rng.integers(0, 4)) / 2,
            "kind": tuple(rng.choice(KINDS, 2)) if i % 3 else str(rng.choice(KINDS)),
            "seen": bool(rng.integers(2)),
        }
        kept = {name: value for name, value in metadata.items() if rng.random() < 0.8}
        yield Passage(f"id-{i:03}", "", f"common word number{i}", f"s{i % 4}", metadata=kept)


PASSAGES = list(make_passages())
VECTORS = np.random.default_rng(1).normal(size=(len(PASSAGES), 8)).astype(np.float32)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filters")
    store = Store.create(directory / "store.sqlite")
    pairs = zip(PASSAGES, VECTORS, strict=True)
    Writer(store, FIELDS).write(Batch([EncodedPassage(passage, vector) for passage, vector in pairs]))
    dense, lexical = ExactIndex(8), LexicalIndex(directory / "lexical", "english", "s")
    with store.reading() as reader:
        for rows, vectors in reader.scan_vectors():
            dense.add(rows, vectors)
        for texts in reader.scan_texts():
            lexical.add(texts)
    lexical.commit(1)
    yield store, dense, lexical
    lexical.close()
    store.close()


def holds(given_filter, passage):
    def values(name):
        value = {"id": passage.id, "source": passage.source, **passage.metadata}.get(name, ())
        return value if isinstance(value, tuple) else (value,)

    match given_filter:
        case Equals(name, value):
            return value in values(name)
        case In(name, wanted):
            return any(value in wanted for value in values(name))
        case Range(name, bounds):
            return any(all(OPERATORS[op](value, bound) for op, bound in bounds) for value in values(name))
        case AllOf(filters):
            return all(holds(one, passage) for one in filters)
        case AnyOf(filters):
            return any(holds(one, passage) for one in filters)
        case Not(inner):
            return not holds(inner, passage)


operands = {
    "year": st.integers(-4, 4),
    "score": st.one_of(st.integers(0, 2), st.sampled_from([0.5, 1.0, 1.75])),
    "kind": st.sampled_from([*KINDS, "absent", "a' OR 1=1 --"]),
    "source": st.sampled_from(["s0", "s1", "s2", "nowhere"]),
    "id": st.sampled_from(["id-000", "id-077", "id-100", "zzz"]),
}
ordered = st.sampled_from(sorted(operands))
leaves = st.one_of(
    ordered.flatmap(lambda name: st.builds(Equals, st.just(name), operands[name])),
    st.builds(Equals, st.just("seen"), st.booleans()),
    ordered.flatmap(
        lambda name: st.builds(In, st.just(name), st.lists(operands[name], min_size=1, max_size=3).map(tuple))
    ),
    ordered.flatmap(
        lambda name: st.builds(
            Range,
            st.just(name),
            st.dictionaries(st.sampled_from(list(OPERATORS)), operands[name], min_size=1, max_size=2).map(
                lambda bounds: tuple(bounds.items())
            ),
        )
    ),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: AllOf(tuple(some))),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: AnyOf(tuple(some))),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=80)
@given(filters, st.sampled_from(Mode), st.sampled_from([0, 20, 10_000]), st.integers(0, 159))
def test_no_search_leaks_a_passage_and_none_that_matches_is_missed(parts, given_filter, mode, exact_rows, about):
    """Over both ways: few matching rows searched exactly, many by fetching more candidates."""
    store, dense, lexical = parts
    matching = {passage.id for passage in PASSAGES if holds(given_filter, passage)}
    plan = Plan(10, 10, Fusion(), 0.05, condition=compile_filter(given_filter, FIELDS))
    query = SearchQuery(mode, f"common number{about}", None if mode is Mode.LEXICAL else VECTORS[about])
    with pytest.MonkeyPatch.context() as patch, store.reading() as reader:
        patch.setattr(candidates, "_MAX_EXACT_ROWS", exact_rows)
        hits = Search(reader, dense, lexical, plan).run([query]).hits[0]
    found = [hit.passage.id for hit in hits]
    assert set(found) <= matching
    assert len(found) == len(set(found)) == min(10, len(matching))
    if PASSAGES[about].id in matching and mode is Mode.LEXICAL:
        assert found[0] == PASSAGES[about].id
    if mode is Mode.DENSE:
        best = sorted(matching, key=lambda id_: -float(VECTORS[int(id_[3:])] @ VECTORS[about]))
        assert found == best[:10]


@settings(deadline=None, max_examples=60)
@given(
    filters,
    st.sampled_from(Mode),
    st.sampled_from([0, 10_000]),
    st.sampled_from([None, 0.0, 0.5]),
    st.booleans(),
    st.integers(0, 159),
)
def test_nothing_leaks_by_tf_idf_diversity_neighbors_or_reranking(
    parts, given_filter, mode, exact_rows, relevance, is_reranked, about
):
    store, dense, lexical = parts
    matching = {passage.id for passage in PASSAGES if holds(given_filter, passage)}
    plan = Plan(
        10, 10, Fusion(), 0.05, condition=compile_filter(given_filter, FIELDS), relevance=relevance, num_neighbors=2,
        lexical_scoring=LexicalScoring.TF_IDF, num_reread=12 if is_reranked else None, with_vectors=True,
    )  # fmt: skip
    query = SearchQuery(mode, f"common number{about}", None if mode is Mode.LEXICAL else VECTORS[about])
    with pytest.MonkeyPatch.context() as patch, store.reading() as reader:
        patch.setattr(candidates, "_MAX_EXACT_ROWS", exact_rows)
        hits = Search(reader, dense, lexical, plan).run([query]).hits[0]
    if is_reranked:
        hits = reranked(hits, [float(len(hits) - i) for i in range(len(hits))], plan)
    assert {hit.passage.id for hit in hits} <= matching
    assert len(hits) == min(10, len(matching))
    for hit in hits:
        beside = [f"id-{i:03}" for i in range(160) if i % 4 == int(hit.passage.source[1:])]
        place = beside.index(hit.passage.id)
        adjacent = beside[max(0, place - 2) : place] + beside[place + 1 : place + 3]
        assert [one.id for one in hit.neighbors] == [id_ for id_ in adjacent if id_ in matching]


class LeakyIndex(ExactIndex):
    """Ignores the rows it is told to stay among, as one GPU build of FAISS does with its selectors."""

    def search_among(self, queries, rows, count):
        return self.search(queries, count)


def test_an_index_that_ignores_the_filter_does_not_leak(parts):
    store, _, lexical = parts
    leaky = LeakyIndex(8)
    given_filter = Equals("id", "id-077")
    plan = Plan(10, 10, Fusion(), 0.05, condition=compile_filter(given_filter, FIELDS))
    query = SearchQuery(Mode.DENSE, "", VECTORS[77])
    with store.reading() as reader:
        for rows, vectors in reader.scan_vectors():
            leaky.add(rows, vectors)
        hits = Search(reader, leaky, lexical, plan).run([query]).hits[0]
    assert [hit.passage.id for hit in hits] == ["id-077"]


def test_probing_candidates_walks_neither_the_collection_nor_the_filters_matches(parts):
    store, *_ = parts
    given_filter = AllOf((Not(Equals("year", 1)), Range("score", (("less_than", 2),)), Equals("source", "s1")))
    condition = compile_filter(given_filter, FIELDS)
    candidates = "p.row IN (SELECT value FROM json_each(?))"
    sql = f"EXPLAIN QUERY PLAN SELECT p.row FROM passages p WHERE {candidates} AND {condition.probe}"
    plan = [row[3] for row in store.connection().execute(sql, ("[1]", *condition.parameters))]
    assert plan[0] == "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)"
    assert sum("SEARCH fields USING" in step and "row=? AND name=?" in step for step in plan) == 2
    assert not any(step.startswith("SCAN") and "json_each" not in step for step in plan)


def test_an_undeclared_field_is_refused_naming_the_declared_ones():
    with pytest.raises(InvalidRequest, match=r"'colour'.*id, kind, score, seen, source, year"):
        compile_filter(Equals("colour", "red"), FIELDS)


@pytest.mark.parametrize(
    "wrong",
    [
        Equals("year", "1998"),
        Equals("year", True),
        Equals("year", 1.5),
        Equals("seen", 1),
        Equals("kind", ("a",)),
        Equals("score", float("nan")),
        Equals("source", 3),
        Range("year", ()),
        Range("seen", (("less_than", True),)),
        In("kind", ()),
        In("year", tuple(range(1_025))),
        AllOf(()),
        AnyOf(tuple(Equals("year", i) for i in range(65))),
    ],
)
def test_operands_of_another_type_and_empty_or_huge_conditions_are_refused(wrong):
    with pytest.raises(InvalidRequest):
        compile_filter(wrong, FIELDS)


def test_deep_nesting_is_refused():
    nested = Equals("year", 1)
    for _ in range(7):
        nested = Not(nested)
    compile_filter(nested, FIELDS)
    with pytest.raises(InvalidRequest, match="nested deeper than 8"):
        compile_filter(Not(nested), FIELDS)


def test_many_conditions_in_all_are_refused():
    wide = AnyOf(tuple(Equals("year", i) for i in range(64)))
    with pytest.raises(InvalidRequest, match="more than 256 conditions"):
        compile_filter(AllOf((wide,) * 4), FIELDS)
