"""Our models against transformers' on tiny random checkpoints: the same encoder states, logits and scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import BartConfig, MBartConfig, T5Config
from transformers.modeling_outputs import BaseModelOutput

from generator_service.models import lean
from generator_service.models.base import EncodedRow, StepItem
from serving.attention import PaddedAttention

VOCAB = 61
BART = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "init_std": 0.3,
    "decoder_start_token_id": 2,
}
T5 = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}


def _bart(**changes: Any) -> Any:
    return transformers.BartForConditionalGeneration(BartConfig(**{**BART, **changes}))


def _mbart(**changes: Any) -> Any:
    return transformers.MBartForConditionalGeneration(MBartConfig(**{**BART, **changes}))


def _t5(**changes: Any) -> Any:
    return transformers.T5ForConditionalGeneration(T5Config(**{**T5, **changes}))


MODELS: dict[str, Callable[[], Any]] = {
    "bart": _bart,
    "bart-unequal": lambda: _bart(encoder_layers=3, decoder_layers=1, decoder_attention_heads=8, decoder_ffn_dim=80),
    "bart-scaled-relu": lambda: _bart(scale_embedding=True, activation_function="relu"),
    "bart-untied": lambda: _bart(tie_word_embeddings=False),
    "mbart": lambda: _mbart(scale_embedding=True),
    "t5": _t5,
    "t5-wide-heads": lambda: _t5(d_kv=16, num_heads=3, num_layers=1, num_decoder_layers=3),
    "t5-v1.1": lambda: _t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5-few-buckets": lambda: _t5(relative_attention_num_buckets=8, relative_attention_max_distance=12),
    "t5-gated-silu": lambda: _t5(feed_forward_proj="gated-silu"),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same weights in transformers and in ours."""

    theirs: Any
    ours: lean.LeanModel
    path: Path


def _randomise(model: Any) -> Any:
    """Norms, biases and the logits bias start as ones and zeros, which would hide a missing one."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name or name.endswith("bias") or "relative" in name:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        if model.config.model_type == "t5" and model.config.scale_decoder_outputs is False:
            # transformers ties T5 v1.1's head at construction; real checkpoints have their own.
            head = torch.randn(model.lm_head.weight.shape, generator=generator)
            model.lm_head.weight = torch.nn.Parameter(head)
    return model.eval()


@pytest.fixture(scope="module", params=sorted(MODELS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.manual_seed(0)
    theirs = _randomise(MODELS[request.param]())
    path = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(path)
    return Pair(theirs, lean.load(path), path)


def _rows(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def _their_states(theirs: Any, row: Sequence[int]) -> Tensor:
    states: Tensor = theirs.get_encoder()(input_ids=torch.tensor([row])).last_hidden_state[0]
    return states


@torch.no_grad()
def _their_logits(theirs: Any, states: Tensor, decoder_ids: Tensor) -> Tensor:
    """(K, U, V) for decoder inputs (K, U) under one row, without a cache."""
    encoded = BaseModelOutput(last_hidden_state=states.expand(len(decoder_ids), -1, -1))
    logits: Tensor = theirs(encoder_outputs=encoded, decoder_input_ids=decoder_ids, use_cache=False).logits
    return logits


def _close(ours: Tensor, theirs: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(ours.float(), theirs.float(), atol=atol, rtol=1e-5)


def test_encoder_states_equal_transformers_for_ragged_rows(pair: Pair) -> None:
    rows = _rows(9, 3, 21, 9, 1, 40)
    encoded = pair.ours.encode(rows)
    for row, mine in zip(rows, encoded, strict=True):
        assert mine.states.shape == (len(row), 32)
        _close(mine.states, _their_states(pair.theirs, row))


def test_padded_attention_gives_what_equal_length_attention_gives(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(5, 8, 8, 2)
    expected = pair.ours.encode(rows)
    monkeypatch.setattr(lean, "packed_attention", PaddedAttention)
    for mine, other in zip(pair.ours.encode(rows), expected, strict=True):
        _close(mine.states, other.states, atol=1e-5)


class Walk:
    """A request's decoder rows with the tokens each has consumed, checked against transformers token by token."""

    def __init__(self, pair: Pair, rows: Sequence[EncodedRow], num_beams: int, seed: int) -> None:
        self.pair = pair
        self.rows = rows
        self.state = pair.ours.open(rows, num_beams=num_beams)
        self.generator = torch.Generator().manual_seed(seed)
        self.history = torch.empty(num_beams, len(rows), 0, dtype=torch.long)

    def item(self) -> StepItem:
        shape = (self.state.num_beams, self.state.num_rows)
        tokens = torch.randint(3, VOCAB, shape, generator=self.generator)
        if not self.state.position:
            tokens.fill_(self.pair.ours.spec.decoder_start_token_id)
        self.history = torch.cat([self.history, tokens[..., None]], -1)
        return StepItem(self.state, tokens)

    def check(self, logits: Tensor) -> None:
        assert self.state.position == self.history.shape[-1]
        for n, row in enumerate(self.rows):
            expected = _their_logits(self.pair.theirs, row.states, self.history[:, n])[:, -1]
            _close(logits[:, n], expected)

    def reorder(self, num_beams: int) -> None:
        shape = (num_beams, self.state.num_rows)
        beams = torch.randint(0, self.state.num_beams, shape, generator=self.generator)
        self.pair.ours.reorder(self.state, beams)
        self.history = self.history.gather(0, beams[..., None].expand(-1, -1, self.history.shape[-1]))


def test_steps_of_mixed_requests_with_reorders_equal_transformers(pair: Pair) -> None:
    encoded = pair.ours.encode(_rows(7, 12, 5, 12, 12))
    joined = EncodedRow(torch.cat([encoded[0].states, encoded[2].states]))
    first = Walk(pair, encoded[:3], 1, seed=1)
    second = Walk(pair, encoded[3:], 3, seed=2)
    fused = Walk(pair, [joined], 2, seed=3)
    waves = [[first], [first, second], [second, first, fused], [fused, first, second], [second, fused], [first, fused]]
    sizes = iter([3, 2, 1, 4, 4, 2, 3, 1, 1, 4, 2, 2, 3])
    for wave in waves:
        logits = pair.ours.step([walk.item() for walk in wave])
        for walk, part in zip(wave, logits, strict=True):
            walk.check(part)
            walk.reorder(next(sizes))


def test_a_row_grows_past_the_first_capacity(pair: Pair) -> None:
    walk = Walk(pair, pair.ours.encode(_rows(6, 6)), 2, seed=5)
    for position in range(36):
        logits = pair.ours.step([walk.item()])[0]
        if position in (15, 16, 17, 31, 32, 35):
            walk.check(logits)
        if position in (14, 16, 30):
            walk.reorder(2)


@torch.no_grad()
def _their_scores(theirs: Any, states: Tensor, target: Sequence[int], start: int) -> Tensor:
    logits = _their_logits(theirs, states, torch.tensor([[start, *target[:-1]]]))[0]
    return logits.log_softmax(-1).gather(-1, torch.tensor(target)[:, None])[:, 0]


TARGETS = [[5, 6, 7, 2], [5, 6, 2], [5, 6, 7, 9, 11, 2], [2], [30, 4, 2], [5, 6, 7, 2]]


def _check_scores(pair: Pair, encoded: Sequence[EncodedRow]) -> None:
    scores = pair.ours.score(encoded, TARGETS)
    start = pair.ours.spec.decoder_start_token_id
    for target, mine in zip(TARGETS, scores, strict=True):
        assert mine.shape == (len(encoded), len(target))
        assert mine.dtype == torch.float32
        for row, part in zip(encoded, mine, strict=True):
            _close(part, _their_scores(pair.theirs, row.states, target, start))


def test_scores_equal_transformers_for_every_target_under_every_row(pair: Pair) -> None:
    _check_scores(pair, pair.ours.encode(_rows(7, 12, 3)))


def test_scores_do_not_depend_on_the_blocks_that_bound_memory(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "_MAX_TREE_NODES", 5)
    monkeypatch.setattr(lean, "_MAX_PACKED_TOKENS", 9)
    monkeypatch.setattr(lean, "_MAX_LOGITS", 3 * VOCAB)
    _check_scores(pair, pair.ours.encode(_rows(7, 12, 3)))


def test_bfloat16_stays_near_float32(pair: Pair) -> None:
    rough = lean.load(pair.path, dtype="bfloat16")
    rows = _rows(7, 12, 3)
    fine, coarse = pair.ours.score(pair.ours.encode(rows), TARGETS), rough.score(rough.encode(rows), TARGETS)
    deviation = torch.cat([(a - b).abs().flatten() for a, b in zip(fine, coarse, strict=True)]).mean()
    spread = torch.cat([part.flatten() for part in fine]).std()
    assert deviation < 0.05 * max(1.0, float(spread))


def test_int8_stays_near_float32(pair: Pair) -> None:
    rough = lean.load(pair.path, dtype="int8", backend="int8")
    assert rough.spec.dtype == "int8"
    rows = _rows(7, 12, 3)
    fine, coarse = pair.ours.score(pair.ours.encode(rows), TARGETS), rough.score(rough.encode(rows), TARGETS)
    deviation = torch.cat([(a - b).abs().flatten() for a, b in zip(fine, coarse, strict=True)]).mean()
    spread = torch.cat([part.flatten() for part in fine]).std()
    assert 0 < deviation < 0.1 * max(1.0, float(spread))


def test_where_int8_is_no_gain_it_is_float32(pair: Pair) -> None:
    exact = lean.load(pair.path, dtype="int8", backend="plain")
    assert exact.spec.dtype == "float32"
    row = _rows(7)
    assert torch.allclose(exact.encode(row)[0].states, pair.ours.encode(row)[0].states, atol=1e-5)


def test_float16_stays_near_float32(pair: Pair) -> None:
    rough = lean.load(pair.path, dtype="float16")
    rows = _rows(7, 12, 3)
    fine, coarse = pair.ours.score(pair.ours.encode(rows), TARGETS), rough.score(rough.encode(rows), TARGETS)
    for a, b in zip(fine, coarse, strict=True):
        _close(b, a, atol=0.1)


def test_plain_and_packed_linears_agree(pair: Pair) -> None:
    other = lean.load(pair.path, backend="plain")
    rows = _rows(7, 12)
    for a, b in zip(pair.ours.encode(rows), other.encode(rows), strict=True):
        _close(a.states, b.states)
