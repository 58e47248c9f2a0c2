"""Steps of several tokens, taking tokens back and dropping rows: the same logits as one token and one row at a time."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generator_service.models import lean
from generator_service.models.base import EncodedRow, StepItem

KINDS = ["lean-bart", "lean-t5", "hf-bart", "hf-t5", "hf-marian", "hf-bert2bert"]


def make(tiny: Any, kind: str, folder: Path, **options: Any) -> Any:
    origin, family = kind.split("-")
    others = {"marian": _marian, "bert2bert": _bert2bert}
    reference = others[family]() if family in others else tiny.family(family, 5)
    if origin == "hf":
        return tiny.adapt(reference)
    reference.save_pretrained(folder)
    return lean.load(folder, **options)


def _marian() -> Any:
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(5)
    config = MarianConfig(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_attention_heads=2, decoder_ffn_dim=32, max_position_embeddings=64, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, init_std=0.6,
    )  # fmt: skip
    return MarianMTModel(config).eval()


def _bert2bert() -> Any:
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    torch.manual_seed(5)
    side = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.6,
    )  # fmt: skip
    config = EncoderDecoderConfig.from_encoder_decoder_configs(side, side)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model = EncoderDecoderModel(config).eval()
    model.generation_config.decoder_start_token_id, model.generation_config.eos_token_id = 2, 3
    model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(params=KINDS)
def model(tiny: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return make(tiny, request.param, tmp_path)


def one_by_one(model: Any, row: EncodedRow, tokens: list[int]) -> Tensor:
    """Logits (U, V) of a lone row that is fed token by token."""
    state = model.open([row])
    return torch.cat([model.step([StepItem(state, torch.tensor([[token]]))])[0][0] for token in tokens])


class Walk:
    """A request whose rows take random steps; remembers what each decoder row has consumed."""

    def __init__(self, model: Any, rows: list[EncodedRow], num_beams: int, source: random.Random) -> None:
        self.model, self.rows, self.source = model, rows, source
        self.state = model.open(rows, num_beams=num_beams)
        self.history = torch.empty(num_beams, len(rows), 0, dtype=torch.int64)
        self.num_new = 0

    def item(self) -> StepItem:
        self.num_new = self.source.choice([1, 1, 2, 3, 5])
        shape = (*self.history.shape[:2], self.num_new)
        tokens = torch.tensor([self.source.randrange(5, 40) for _ in range(torch.Size(shape).numel())]).view(shape)
        self.history = torch.cat([self.history, tokens], -1)
        is_flat = self.num_new == 1 and self.source.random() < 0.5
        return StepItem(self.state, tokens[..., 0] if is_flat else tokens)

    def check(self, logits: Tensor) -> None:
        beams, rows, _ = self.history.shape
        assert (self.state.num_beams, self.state.num_rows, self.state.position) == tuple(self.history.shape)
        logits = logits.view(beams, rows, self.num_new, -1)
        for k in range(beams):
            for i, row in enumerate(self.rows):
                expected = one_by_one(self.model, row, self.history[k, i].tolist())[-self.num_new :]
                torch.testing.assert_close(logits[k, i], expected, atol=3e-4, rtol=1e-4)

    def change(self) -> None:
        """Takes tokens back, or reorders beams and perhaps drops rows."""
        beams, count, length = self.history.shape
        if self.source.random() < 0.5:
            taken = self.source.randrange(self.num_new + 1)
            self.model.rewind(self.state, taken)
            self.history = self.history[:, :, : length - taken]
            return
        kept = None if self.source.random() < 0.4 else sorted(self.source.sample(range(count), max(1, count - 1)))
        rows = list(range(count)) if kept is None else kept
        parents = torch.tensor(
            [[self.source.randrange(beams) for _ in rows] for _ in range(self.source.randrange(1, 4))]
        )
        self.model.reorder(self.state, parents, kept)
        self.history = self.history[parents, torch.tensor(rows)]
        self.rows = [self.rows[row] for row in rows]


def test_random_walks_of_requests_stepped_together_equal_single_steps(tiny: Any, model: Any) -> None:
    source = random.Random(11)
    encoded = model.encode(tiny.rows(source, 5))
    walks = [Walk(model, encoded, 1, source), Walk(model, encoded[2:], 3, source), Walk(model, encoded[1:2], 2, source)]
    for _ in range(5):
        taking_part = source.sample(walks, source.randrange(1, 4))
        logits = model.step([walk.item() for walk in taking_part])
        for walk, part in zip(taking_part, logits, strict=True):
            walk.check(part)
            walk.change()


def test_tokens_past_the_first_capacity_equal_single_steps(tiny: Any, model: Any) -> None:
    encoded = model.encode(tiny.rows(random.Random(3), 2))
    tokens = [5 + number % 30 for number in range(41)]
    state = model.open(encoded)
    model.step([StepItem(state, torch.tensor(tokens[:10]).expand(1, 2, -1))])
    logits = model.step([StepItem(state, torch.tensor(tokens[10:]).expand(1, 2, -1))])[0]
    for i, row in enumerate(encoded):
        torch.testing.assert_close(logits[0, i], one_by_one(model, row, tokens)[10:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_bfloat16_steps_of_several_tokens_stay_near_single_ones(tiny: Any, family: str, tmp_path: Path) -> None:
    model = make(tiny, f"lean-{family}", tmp_path, dtype="bfloat16")
    row = model.encode(tiny.rows(random.Random(4), 1))[0]
    tokens = [9, 8, 7, 6, 5, 12]
    logits = model.step([StepItem(model.open([row]), torch.tensor([[tokens]]))])[0][0, 0]
    expected = one_by_one(model, row, tokens)
    assert (logits.float() - expected.float()).abs().mean() < 0.03 * expected.float().std()


@pytest.mark.parametrize("num_tokens", [-1, 4])
def test_more_than_was_fed_cannot_be_taken_back(tiny: Any, model: Any, num_tokens: int) -> None:
    state = model.open(model.encode([[5, 6]]))
    model.step([StepItem(state, torch.tensor([[[5, 6, 7]]]))])
    with pytest.raises(ValueError, match=f"cannot take back {num_tokens} of 3 tokens"):
        model.rewind(state, num_tokens)


def test_dropped_rows_are_not_stepped_and_their_keys_stay_for_scoring(tiny: Any, tmp_path: Path) -> None:
    model = make(tiny, "lean-bart", tmp_path)
    encoded = model.encode(tiny.rows(random.Random(6), 5))
    state = model.open(encoded)
    tokens = torch.full((1, 5), 7)
    model.step([StepItem(state, tokens)])
    model.reorder(state, torch.zeros(1, 2, dtype=torch.int64), [1, 4])
    before = model.counters["decoder_rows"]
    model.step([StepItem(state, tokens[:, :2])])
    assert model.counters["decoder_rows"] - before == 2
    model.score(encoded, [[5, 2]])
    assert model.counters["rows_projected"] == 5


def test_padding_and_tokens_are_counted(tiny: Any, tmp_path: Path) -> None:
    rows = [[5] * length for length in (12, 9, 8, 3, 3)]
    adapter = make(tiny, "hf-bart", tmp_path)
    adapter.encode(rows)
    assert adapter.counters["encoded_tokens"] == 35
    assert adapter.counters["padded_tokens"] == 12 - 9  # buckets: 12 and 9; 8; 3 and 3
    own = make(tiny, "lean-bart", tmp_path)
    own.encode(rows)
    assert (own.counters["encoded_tokens"], own.counters["padded_tokens"]) == (35, 0)
