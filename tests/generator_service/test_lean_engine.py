"""What our models do once and share: rows, padding, cross-attention, steps, prefixes of targets."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import BartConfig
from transformers.models.t5.modeling_t5 import T5Attention

from generator_service.models import lean
from generator_service.models.base import EncodedRow, StepItem
from generator_service.models.t5 import relative_buckets
from generator_service.models.tree import token_trees
from serving.attention import EqualLengthAttention, PaddedAttention


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_attention_heads=2, decoder_ffn_dim=24, max_position_embeddings=32, init_std=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("bart")
    transformers.BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture
def model(path: Path) -> lean.LeanModel:
    return lean.load(path)


def _item(model: lean.LeanModel, rows: list[EncodedRow], num_beams: int) -> StepItem:
    return StepItem(model.open(rows, num_beams=num_beams), torch.full((num_beams, len(rows)), 4))


def test_every_row_is_encoded_once_and_nothing_is_padded_on_cpu(model: lean.LeanModel) -> None:
    model.encode([[3] * length for length in (9, 4, 9, 30, 1)])
    assert model.counters["rows_encoded"] == 5
    assert model.counters["padded_tokens"] == 0


def test_a_padded_batch_counts_what_it_pads(model: lean.LeanModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "packed_attention", PaddedAttention)
    model.encode([[3] * 9, [3] * 4, [3] * 7])
    assert model.counters["padded_tokens"] == 5 + 2


def test_batches_stay_below_the_token_bound_and_keep_the_order(
    model: lean.LeanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[5] * 7, [6] * 12, [7] * 3, [8] * 7]
    expected = model.encode(rows)
    sizes: list[int] = []

    def spy(lengths: list[int], device: torch.device) -> EqualLengthAttention:
        sizes.append(sum(lengths))
        return EqualLengthAttention(lengths)

    monkeypatch.setattr(lean, "_MAX_PACKED_TOKENS", 14)
    monkeypatch.setattr(lean, "packed_attention", spy)
    split = model.encode(rows)
    assert sizes == [10, 7, 12]
    for a, b in zip(split, expected, strict=True):
        torch.testing.assert_close(a.states, b.states, atol=1e-5, rtol=1e-5)


def test_an_encoded_row_owns_its_memory(model: lean.LeanModel) -> None:
    for row in model.encode([[3] * 9, [3] * 4]):
        assert row.states.untyped_storage().nbytes() == row.states.nbytes


@pytest.mark.parametrize("length", [0, 33])
def test_a_row_that_cannot_be_encoded_is_refused(model: lean.LeanModel, length: int) -> None:
    with pytest.raises(ValueError, match=f"an input row has {length} tokens; 1 to 32 are possible"):
        model.encode([[3], [3] * length])


@pytest.mark.parametrize("length", [0, 33])
def test_a_target_that_cannot_be_scored_is_refused(model: lean.LeanModel, length: int) -> None:
    with pytest.raises(ValueError, match=f"a target has {length} tokens; 1 to 32 are possible"):
        model.score(model.encode([[3]]), [[3] * length])


def test_one_step_serves_all_requests(model: lean.LeanModel) -> None:
    encoded = model.encode([[3, 4, 5], [6, 7], [8]])
    logits = model.step([_item(model, encoded, 4), _item(model, encoded[:2], 1)])
    assert [part.shape for part in logits] == [(4, 3, 50), (1, 2, 50)]
    assert model.counters["steps"] == 1
    assert model.counters["decoder_rows"] == 4 * 3 + 2


def test_cross_attention_is_projected_once_per_row_whatever_the_beams(model: lean.LeanModel) -> None:
    encoded = model.encode([[3, 4, 5], [6, 7]])
    item = _item(model, encoded, 4)
    model.step([item])
    model.reorder(item.state, torch.tensor([[0, 1], [2, 3], [3, 3], [1, 0], [0, 0]]))
    assert model.counters["rows_projected"] == 2
    assert item.state.num_beams == 5


def test_scoring_uses_the_keys_of_states_that_are_open(model: lean.LeanModel) -> None:
    encoded = model.encode([[3, 4, 5], [6, 7]])
    fresh = model.score(encoded, [[5, 6, 2]])
    assert model.counters["rows_projected"] == 2
    state = model.open(encoded)
    shared = model.score(encoded[::-1], [[5, 6, 2]])
    assert model.counters["rows_projected"] == 4
    torch.testing.assert_close(shared[0], fresh[0].flip(0))
    del state


def test_a_state_that_is_dropped_frees_its_keys_and_values(model: lean.LeanModel) -> None:
    encoded = model.encode([[3, 4, 5], [6, 7]])
    state = model.open(encoded)
    watch = weakref.ref(state.cross)
    del state
    gc.collect()
    assert watch() is None
    model.score(encoded, [[5, 2]])
    assert model.counters["rows_projected"] == 4


def test_what_targets_share_is_decoded_once(model: lean.LeanModel) -> None:
    encoded = model.encode([[3, 4, 5], [6, 7]])
    model.score(encoded, [[5, 6, 7, 2], [5, 6, 8, 2], [5, 6, 7, 2]])
    assert model.counters["scored_tokens"] == 2 * len(["start", "5", "5 6", "5 6 7", "5 6 8"])


def test_a_foreign_state_is_refused(model: lean.LeanModel) -> None:
    with pytest.raises(TypeError, match="another model"):
        model.reorder(object(), torch.zeros(1, 1, dtype=torch.long))  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=6), max_size=12), st.integers(1, 12))
def test_trees_hold_every_target_once_and_every_node_sees_its_own_prefix(
    targets: list[list[int]], max_nodes: int
) -> None:
    trees = list(token_trees(targets, 1, max_nodes=max_nodes))
    assert sorted(number for tree in trees for number in tree.paths) == list(range(len(targets)))
    for tree in trees:
        sees = tree.ancestors()
        assert len(tree.tokens) <= max(max_nodes, *(len(targets[number]) for number in tree.paths))
        for number, path in tree.paths.items():
            prefix = [1, *targets[number][:-1]]
            assert [tree.tokens[node] for node in path] == prefix
            for depth, node in enumerate(path):
                assert tree.depths[node] == depth
                assert set(sees[node].nonzero()[0]) == set(path[: depth + 1])


@pytest.mark.parametrize("is_two_way", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 12)])
def test_relative_buckets_equal_transformers(is_two_way: bool, num_buckets: int, max_distance: int) -> None:
    distances = torch.arange(-600, 601)
    expected = T5Attention._relative_position_bucket(distances, is_two_way, num_buckets, max_distance)
    ours = relative_buckets(distances, is_two_way=is_two_way, num_buckets=num_buckets, max_distance=max_distance)
    assert torch.equal(ours, expected)
