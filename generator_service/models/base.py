"""What the engine needs of a seq2seq model. Knows nothing of passages, priors or marginalisation.

Shape letters: R encoder rows, T input tokens, D model width, N passages of a request, K beams, S tokens of a step,
V vocabulary, C target sequences, U target tokens.

A decode state holds K x N decoder rows: each of N encoder rows is decoded K times. Cross-attention keys and values are
kept once per encoder row; only self-attention keys and values exist per decoder row. States of different requests may
stand at different positions and are stepped together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a loaded model is. Token ids are None where the checkpoint has none."""

    name: str
    architecture: str
    digest: str
    dtype: str
    device: str
    num_parameters: int
    vocab_size: int
    max_input_tokens: int
    max_target_tokens: int
    decoder_start_token_id: int
    eos_token_id: int
    pad_token_id: int
    bos_token_id: int | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Encoder output of one input row, without padding: `states` (T, D) in the model's dtype.

    Rows joined along T are one row again: that is fusion-in-decoder.
    """

    states: torch.Tensor


class DecodeState(Protocol):
    """Where one request's decoder rows stand; made by `Seq2SeqModel.open` and owned by that model."""

    @property
    def num_beams(self) -> int:
        """K, the decoder rows per encoder row."""
        ...

    @property
    def num_rows(self) -> int:
        """N, the encoder rows."""
        ...

    @property
    def position(self) -> int:
        """Decoder tokens consumed so far."""
        ...


@dataclass(frozen=True, slots=True)
class StepItem:
    """One request's part of a decode step.

    `tokens` int64: (K, N), the last token of each decoder row, or (K, N, S), several tokens in a row, each of which
    sees the ones before it.
    """

    state: DecodeState
    tokens: torch.Tensor


def count_step(counters: Counter[str], items: Sequence[StepItem]) -> None:
    """Counts one model step; see `Seq2SeqModel.counters`."""
    num_rows = sum(item.tokens.shape[:2].numel() for item in items)
    num_tokens = sum(item.tokens.numel() for item in items)
    counters.update(steps=1, decoder_rows=num_rows, decoder_tokens=num_tokens)


class Seq2SeqModel(Protocol):
    """A model on one device. Not thread-safe: one thread owns it."""

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """Work done since loading; may be read from any thread.

        At least rows_encoded, encoded_tokens, padded_tokens (computed for padding only; padded / (encoded + padded) is
        the padding ratio), steps (calls of `step`), decoder_rows and decoder_tokens (over all steps: rows, and rows x
        tokens fed).
        """
        ...

    def encode(self, rows: Sequence[Sequence[int]]) -> list[EncodedRow]:
        """Runs the encoder once per row of token ids (no padding, special tokens included).

        The model batches by length itself; the results come in the rows' order.
        """
        ...

    def open(self, rows: Sequence[EncodedRow], *, num_beams: int = 1) -> DecodeState:
        """Starts decoding: projects cross-attention keys and values, once per encoder row."""
        ...

    def step(self, items: Sequence[StepItem]) -> list[torch.Tensor]:
        """Feeds one or several tokens to every decoder row of every item and advances the states by as many.

        Returns:
            Per item the logits of the next token, in the model's dtype, valid until the next call: (K, N, V), or
            (K, N, S, V) where tokens were (K, N, S): after each of them.
        """
        ...

    def rewind(self, state: DecodeState, num_tokens: int) -> None:
        """Takes back the last tokens that every decoder row was fed; at most `state.position`."""
        ...

    def reorder(self, state: DecodeState, beams: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """Makes decoder row (k, i) continue row (beams[k, i], rows[i]).

        Args:
            state: The state to change.
            beams: (K', N') int64; K' may differ from K, which is how beams start from one row and are dropped.
            rows: The N' encoder rows that go on, ascending, as numbered now; None keeps all.
        """
        ...

    def score(self, rows: Sequence[EncodedRow], targets: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Teacher-forces every target under every encoder row, from cached encoder states.

        Args:
            rows: N encoder rows.
            targets: C sequences of target ids, end-of-sequence included, decoder start excluded.

        Returns:
            Per target a float32 tensor (N, U): log p(target_u | row, target_<u).
        """
        ...
