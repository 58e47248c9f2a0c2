"""Any transformers encoder-decoder behind `Seq2SeqModel`: correct for every family, with transformers' own speed.

Each request's state is stepped on its own, with transformers' caches. Decoder row (k, n) lies at k * N + n.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from generator_service.models.base import DecodeState, EncodedRow, ModelSpec, StepItem, count_step
from generator_service.models.buckets import buckets, padding

_ENCODE_TOKENS = 8192
"""Padded tokens per encoder batch; bounds the activations' memory."""
_SCORE_LOGITS = 32 * 1024 * 1024
"""Logits per scoring batch (128 MiB in float32)."""


@dataclass(slots=True)
class HfState:
    """See `DecodeState`; `states` (N, T, D) and `mask` (N, T) are padded encoder outputs."""

    states: Tensor
    mask: Tensor
    cache: EncoderDecoderCache
    num_beams: int
    position: int = 0

    @property
    def num_rows(self) -> int:
        """N, the encoder rows."""
        return self.states.shape[0]


class HfSeq2Seq:
    """A transformers model as `Seq2SeqModel`; see there for the methods."""

    def __init__(self, model: PreTrainedModel, spec: ModelSpec) -> None:
        self._model: Any = model.eval()
        self._spec = spec
        self._device = torch.device(spec.device)
        self.counters: Counter[str] = Counter()

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        return self._spec

    @torch.inference_mode()
    def encode(self, rows: Sequence[Sequence[int]]) -> list[EncodedRow]:
        """Encodes rows in batches of similar length."""
        encoded: dict[int, EncodedRow] = {}
        for batch in buckets([len(row) for row in rows], max_tokens=_ENCODE_TOKENS):
            longest = len(rows[batch[0]])
            ids = torch.full((len(batch), longest), self._spec.pad_token_id)
            mask = torch.zeros((len(batch), longest), dtype=torch.int64)
            for place, i in enumerate(batch):
                ids[place, : len(rows[i])] = torch.tensor(rows[i])
                mask[place, : len(rows[i])] = 1
            encoder = self._model.get_encoder()
            states = encoder(input_ids=ids.to(self._device), attention_mask=mask.to(self._device))[0]
            for place, i in enumerate(batch):
                encoded[i] = EncodedRow(states[place, : len(rows[i])].clone())
            self.counters["padded_tokens"] += padding([len(rows[i]) for i in batch])
        self.counters["rows_encoded"] += len(rows)
        self.counters["encoded_tokens"] += sum(len(row) for row in rows)
        return [encoded[i] for i in range(len(rows))]

    @torch.inference_mode()
    def open(self, rows: Sequence[EncodedRow], *, num_beams: int = 1) -> HfState:
        """Starts decoding; cross-attention is projected by the first step."""
        states, mask = self._padded(rows)
        return HfState(states, mask, EncoderDecoderCache(DynamicCache(), DynamicCache()), num_beams)

    @torch.inference_mode()
    def step(self, items: Sequence[StepItem]) -> list[Tensor]:
        """Steps every item on its own."""
        count_step(self.counters, items)
        return [self._step(item) for item in items]

    def rewind(self, state: DecodeState, num_tokens: int) -> None:
        """Cuts the self-attention caches.

        Raises:
            ValueError: The state has not consumed as many.
        """
        state = _own(state)
        if not 0 <= num_tokens <= state.position:
            raise ValueError(f"cannot take back {num_tokens} of {state.position} tokens")
        state.cache.crop(-num_tokens)
        state.position -= num_tokens

    @torch.inference_mode()
    def reorder(self, state: DecodeState, beams: Tensor, rows: Sequence[int] | None = None) -> None:
        """Selects the caches' rows; those of cross-attention, equal for all beams, only when beams or rows go."""
        state, beams = _own(state), beams.to(self._device)
        kept = torch.arange(state.num_rows) if rows is None else torch.tensor(rows)
        kept, are_fewer = kept.to(self._device), len(kept) < state.num_rows
        if state.position:
            state.cache.self_attention_cache.reorder_cache((beams * state.num_rows + kept).flatten())
            if are_fewer or beams.shape[0] != state.num_beams:
                state.cache.cross_attention_cache.reorder_cache(kept.repeat(beams.shape[0]))
        if are_fewer:
            state.states, state.mask = state.states[kept], state.mask[kept]
        state.num_beams = beams.shape[0]

    @torch.inference_mode()
    def score(self, rows: Sequence[EncodedRow], targets: Sequence[Sequence[int]]) -> list[Tensor]:
        """Teacher-forces every target under every row, some targets of similar length at a time."""
        states, mask = self._padded(rows)
        scores: dict[int, Tensor] = {}
        budget = max(1, _SCORE_LOGITS // (self._spec.vocab_size * len(rows)))
        for batch in buckets([len(target) for target in targets], max_tokens=budget):
            for i, score in zip(batch, self._score(states, mask, [targets[i] for i in batch]), strict=True):
                scores[i] = score
        return [scores[i] for i in range(len(targets))]

    def _step(self, item: StepItem) -> Tensor:
        state = _own(item.state)
        beams = state.num_beams
        states, mask = state.states, state.mask
        if beams > 1:
            states, mask = states.repeat(beams, 1, 1), mask.repeat(beams, 1)
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=item.tokens.to(self._device).reshape(beams * state.num_rows, -1),
            past_key_values=state.cache,
            use_cache=True,
        )
        state.position += output.logits.shape[1]
        logits: Tensor = output.logits
        return logits.view(*item.tokens.shape, -1)

    def _score(self, states: Tensor, mask: Tensor, targets: Sequence[Sequence[int]]) -> list[Tensor]:
        """Scores (N, U) of a batch of targets in one forward pass of C x N rows."""
        longest = max(len(target) for target in targets)
        inputs = torch.full((len(targets), longest), self._spec.pad_token_id)
        labels = torch.zeros((len(targets), longest), dtype=torch.int64)
        for place, target in enumerate(targets):
            labels[place, : len(target)] = torch.tensor(target)
            inputs[place, : len(target)] = torch.tensor([self._spec.decoder_start_token_id, *target[:-1]])
        count = states.shape[0]
        logits = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.repeat(len(targets), 1, 1)),
            attention_mask=mask.repeat(len(targets), 1),
            decoder_input_ids=inputs.to(self._device).repeat_interleave(count, 0),
            use_cache=False,
        ).logits
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        chosen = log_probs.gather(-1, labels.to(self._device).repeat_interleave(count, 0)[:, :, None])
        by_target = chosen.view(len(targets), count, longest)
        return [by_target[place, :, : len(target)] for place, target in enumerate(targets)]

    def _padded(self, rows: Sequence[EncodedRow]) -> tuple[Tensor, Tensor]:
        """Encoder states (N, T, D) and mask (N, T)."""
        states = torch.nn.utils.rnn.pad_sequence([row.states for row in rows], batch_first=True)
        lengths = torch.tensor([row.states.shape[0] for row in rows], device=states.device)
        mask = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return states, mask.long()


def _own(state: DecodeState) -> HfState:
    if not isinstance(state, HfState):
        raise TypeError("the state was opened by another model")
    return state
