import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_service.dense import building, merging, segment
from retriever_service.dense.building import SegmentOptions
from retriever_service.dense.factory import check_factory, factory_for
from retriever_service.dense.segmented import SegmentedIndex
from serving.errors import InvalidRequest
from tests.retriever_service import dense_sources
from tests.retriever_service.dense_sources import DIM, FakeStore, brute_force, vector_of

QUANTISED = "RaBitQfs,Refine(SQfp16)"
QUERIES = np.stack([vector_of(row) for row in (10**6, 10**6 + 3, 10**6 + 6)])


@pytest.fixture(autouse=True)
def _small_delta(monkeypatch):
    monkeypatch.setattr(merging, "MIN_DELTA", 40)


def open_index(store, directory, **options):
    index = SegmentedIndex(directory, dense_sources.settings(), store.open_source, SegmentOptions(**options))
    index.load(store.now)
    return index


def add(index, store, number):
    rows = store.add(number)
    index.add(*store.now.vectors(rows))


def remove(index, store, rows):
    store.remove(rows)
    index.remove(rows)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 120)),
        st.tuples(st.just("remove"), st.integers(0, 10**6)),
        st.tuples(st.just("merge"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize("factory", ["Flat", QUANTISED, "HNSW8", "IVF4,PQ4x4"])
@settings(deadline=None, max_examples=12)
@given(steps=steps, count=st.integers(1, 30))
def test_after_any_changes_merges_and_restarts_nothing_leaks_and_exact_kinds_miss_nothing(
    factory, steps, count, tmp_path_factory
):
    store, directory = FakeStore(), tmp_path_factory.mktemp("dense")
    options = {"choose_factory": lambda *_: factory, "max_segment_bytes": 100 * 2 * DIM}
    index = open_index(store, directory, **options)
    for name, number in steps:
        if name == "add":
            add(index, store, number)
        elif name == "remove":
            remove(index, store, [row for row in store.now.stored if (row * 2654435761 + number) % 3 == 0])
        elif name == "merge":
            index.wait_for_merge()
        else:
            index.close()
            index = open_index(store, directory, **options)
    live = store.now.stored
    found = index.search(QUERIES, count)
    assert index.num_vectors == len(live)
    assert all(len(segment.rows) <= 100 for segment in index._state.segments)
    present = found.rows[found.rows >= 0]
    assert set(present.tolist()) <= live.keys()
    assert all(len(set(rows[rows >= 0])) == (rows >= 0).sum() for rows in found.rows)
    if factory != "HNSW8":  # A graph may not reach everything.
        assert (found.rows >= 0).sum() == len(QUERIES) * min(count, len(live))
    if factory == "Flat":
        assert np.array_equal(found.rows, brute_force(live, QUERIES, count))
        assert all((np.diff(line[~np.isinf(line)]) <= 0).all() for line in found.scores)
    among = np.array([*sorted(live)[::3], 10**9], np.int64)
    few = index.search_among(QUERIES, among, count)
    assert np.array_equal(few.rows, brute_force(live, QUERIES, count, among.tolist()))
    index.close()


def test_search_goes_on_during_a_merge_and_what_changes_meanwhile_counts(tmp_path):
    store = FakeStore()
    index = open_index(store, tmp_path)
    begun, may_go_on = threading.Event(), threading.Event()

    def stall():
        begun.set()
        assert may_go_on.wait(10)

    store.before_reading = stall
    add(index, store, 100)
    assert begun.wait(10)
    add(index, store, 7)
    remove(index, store, [1, 50, 103])
    during = index.search(QUERIES, 20)
    may_go_on.set()
    index.wait_for_merge()
    after = index.search(QUERIES, 20)
    assert len(index._state.segments) == 1
    assert index._state.delta.num_vectors == 6
    expected = brute_force(store.now.stored, QUERIES, 20)
    assert np.array_equal(during.rows, expected)
    assert np.array_equal(after.rows, expected)
    index.close()


def test_a_write_beyond_the_deltas_limit_waits_for_the_merge_under_way(tmp_path):
    store = FakeStore()
    index = open_index(store, tmp_path)
    may_go_on = threading.Event()
    store.before_reading = lambda: may_go_on.wait(10)
    add(index, store, 41)
    add(index, store, 200)  # Beyond 4 x 40: the next one waits.
    writer = threading.Thread(target=lambda: add(index, store, 5))
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    assert index._state.delta.num_vectors == 241
    may_go_on.set()
    writer.join(10)
    index.wait_for_merge()
    assert np.array_equal(index.search(QUERIES, 9).rows, brute_force(store.now.stored, QUERIES, 9))
    index.close()


def damage_index(directory):
    path = next(directory.glob("*.faiss"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_content(directory):
    path = next(directory.glob("*.faiss"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    path.write_bytes(content)


def lose_rows(directory):
    next(directory.glob("*.rows.npy")).unlink()


def truncate_manifest(directory):
    path = directory / "manifest.json"
    path.write_text(path.read_text()[:40])


def change_manifest(**values):
    def change(directory):
        path = directory / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        damage_index,
        damage_content,
        lose_rows,
        truncate_manifest,
        change_manifest(sequence=10**6),
        change_manifest(origin="another store"),
        change_manifest(format=99),
    ],
)
def test_damaged_files_are_built_anew_from_the_store(damage, tmp_path):
    store = FakeStore()
    index = open_index(store, tmp_path, max_segment_bytes=60 * 2 * DIM)
    add(index, store, 150)
    index.wait_for_merge()
    remove(index, store, [3, 77])
    add(index, store, 10)
    index.wait_for_merge()
    index.close()
    assert len(list(tmp_path.glob("*.faiss"))) > 1
    damage(tmp_path)
    index = open_index(store, tmp_path, max_segment_bytes=60 * 2 * DIM)
    assert np.array_equal(index.search(QUERIES, 30).rows, brute_force(store.now.stored, QUERIES, 30))
    index.close()
    kept = {path.name for path in tmp_path.iterdir()}
    index = open_index(store, tmp_path)  # Healed: nothing is built again.
    assert {path.name for path in tmp_path.iterdir()} == kept
    index.close()


def test_what_a_killed_merge_left_behind_is_deleted(tmp_path):
    store = FakeStore()
    index = open_index(store, tmp_path)
    add(index, store, 100)
    index.wait_for_merge()
    index.close()
    (tmp_path / "abc.faiss").write_bytes(b"half")
    (tmp_path / "abc.rows.npy.new").write_bytes(b"half")
    open_index(store, tmp_path).close()
    assert not list(tmp_path.glob("abc*"))


def test_a_merge_that_fails_keeps_everything_searchable(tmp_path, monkeypatch):
    store = FakeStore()
    index = open_index(store, tmp_path)
    monkeypatch.setattr("retriever_service.dense.segmented.SegmentFiles.write", lambda *_: 1 / 0)
    add(index, store, 100)
    index.wait_for_merge()
    add(index, store, 3)
    assert np.array_equal(index.search(QUERIES, 9).rows, brute_force(store.now.stored, QUERIES, 9))
    index.close()


def test_vectors_of_merged_away_rows_are_in_no_file(tmp_path):
    store = FakeStore()
    index = open_index(store, tmp_path)
    add(index, store, 100)
    index.wait_for_merge()
    gone = store.now.stored[5].tobytes()
    assert any(gone in path.read_bytes() for path in tmp_path.glob("*.faiss"))
    remove(index, store, list(range(1, 40)))  # Over a fifth.
    index.wait_for_merge()
    assert not any(gone in path.read_bytes() for path in tmp_path.glob("*.faiss"))
    index.close()


def test_the_kind_follows_the_size_and_its_recall_is_measured(tmp_path):
    store = FakeStore()
    store.add(600)
    index = open_index(store, tmp_path, choose_factory=lambda *_: QUANTISED)
    assert index.kind == QUANTISED
    assert 0.9 < index.measured_recall <= 1.0
    again = open_index(store, tmp_path, choose_factory=lambda *_: QUANTISED)
    assert again.measured_recall == index.measured_recall
    chosen = [
        factory_for(total, size) for total, size in ((200_000,) * 2, (300_000, 9_000), (10**6,) * 2, (4 * 10**6,) * 2)
    ]
    assert chosen == ["Flat", "Flat", QUANTISED, f"IVF8000,{QUANTISED}"]
    index.close()
    again.close()


def test_calibration_takes_the_cheapest_parameters_that_reach_the_recall(tmp_path):
    store = FakeStore()
    store.add(2_000)
    recalls = {}
    for target in (0.1, 0.999):
        options = {"choose_factory": lambda *_: "IVF64,Flat", "target_recall": target}
        index = open_index(store, tmp_path / str(target), **options)
        (segment,) = index._state.segments
        assert (index.search(QUERIES, 1_000).rows >= 0).all()  # More lists are looked into than it is calibrated for.
        recalls[target] = (int(segment.parameters.removeprefix("nprobe=")), segment.recall)
        index.close()
    assert recalls[0.1][0] < recalls[0.999][0]
    assert recalls[0.1][1] < recalls[0.999][1]


def test_building_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "_REPORT_SECONDS", 0.0)
    store, told = FakeStore(), []
    store.add(600)
    index = open_index(store, tmp_path, choose_factory=lambda *_: QUANTISED, on_progress=told.append)
    assert told == sorted(told)
    assert 0 < told[0] < 0.2
    assert told[-1] == 1.0
    index.close()


def test_threads_share_an_exact_segments_rows_and_other_segments_queries(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "_MIN_SLICE", 100)
    store = FakeStore()
    store.add(450)
    queries = np.stack([vector_of(10**6 + number) for number in range(7)])
    for factory in ("Flat", "SQ8"):
        with ThreadPoolExecutor(3) as threads:
            options = {"choose_factory": lambda *_, factory=factory: factory, "num_threads": 3, "threads": threads}
            index = open_index(store, tmp_path / factory, **options)
            remove(index, store, [4, 250, 449])
            found, alone = index.search(queries, 9).rows, open_index(store, tmp_path / "alone").search(queries, 9).rows
            assert len(index._state.segments[0].slices(3)) == (3 if factory == "Flat" else 1)
        assert found.shape == alone.shape
        shared = [len(set(one) & set(other)) for one, other in zip(found, alone, strict=True)]
        assert np.array_equal(found, alone) if factory == "Flat" else min(shared) >= 8
        index.close()


def test_too_few_vectors_to_train_on_are_searched_exactly(tmp_path):
    store = FakeStore()
    store.add(100)
    index = open_index(store, tmp_path, choose_factory=lambda *_: "IVF4096,Flat")
    assert (index.kind, index.num_vectors) == ("exact", 100)
    index.close()


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF100,PQ4", "OPQ4,IVF16,PQ4x4", "IDMap,Flat", "SQ8"])
def test_factory_strings_of_faiss_are_taken(factory):
    assert check_factory(factory, DIM) == factory


@pytest.mark.parametrize("factory", ["nonsense", "LSH", "PQ7", "IVF", "Flat; import os"])
def test_other_factory_strings_are_refused_by_name(factory):
    with pytest.raises(InvalidRequest, match="index_factory"):
        check_factory(factory, DIM)
