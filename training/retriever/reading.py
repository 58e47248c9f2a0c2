"""What a frozen reader says of the passages found for a question: the targets that a retriever is trained to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.joint.reader import Reader, Row
from training.retriever.data import Passage, Question
from training.retriever.losses import adist_target


class FrozenReader:
    """A generator that is not trained. The answer it is asked about is the question's first."""

    def __init__(self, reader: Reader, *, dtype: torch.dtype) -> None:
        self._reader = reader.requires_grad_(False).eval().to(dtype)

    @torch.no_grad()
    def answer_log_probs(
        self, questions: Sequence[Question], found: Sequence[Sequence[Passage]]
    ) -> tuple[Tensor, Tensor]:
        """A (B, k), the log probability of each answer given each passage, and the answers' lengths (B,)."""
        rows = [self._row(each, passage) for each, some in zip(questions, found, strict=True) for passage in some]
        by_token, _ = self._reader(rows)
        num_tokens = torch.tensor([len(self._reader.target(each.answers[0])) for each in questions])
        return by_token.sum(-1).view(len(questions), -1), num_tokens

    @torch.no_grad()
    def attention_targets(
        self, questions: Sequence[Question], found: Sequence[Sequence[Passage]], temperature: float
    ) -> Tensor:
        """Target logits (B, k) of `adist_target`: one decoder reads all of a question's passages at once."""
        targets = []
        for question, some in zip(questions, found, strict=True):
            states, passage_of = self._encode([self._row(question, passage) for passage in some])
            attention, norms = self._drawn(states)
            targets.append(adist_target(attention, norms, passage_of, len(some), temperature))
        return torch.cat(targets)

    def _row(self, question: Question, passage: Passage) -> Row:
        return self._reader.row(question.text, passage.title, passage.text, question.answers[0])

    def _encode(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Encoder states (1, S, D) of all rows side by side, and the row of each (1, S)."""
        ids = pad_sequence([torch.tensor(row.input_ids) for row in rows], batch_first=True)
        mask = pad_sequence([torch.ones(len(row.input_ids), dtype=torch.int64) for row in rows], batch_first=True)
        states = self._reader.generator.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        is_real = mask.bool()
        return states[is_real][None], is_real.nonzero()[None, :, 0]

    def _drawn(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention (1, L, H, S) of the first decoded token, and the lengths of the values it mixes."""
        generator = self._reader.generator
        layers = [layer.encoder_attn for layer in generator.get_decoder().layers]
        start = torch.tensor([[generator.config.decoder_start_token_id]])
        with _recorded(layers) as weights:
            generator.get_decoder()(input_ids=start, encoder_hidden_states=states, use_cache=False)
        values = [layer.v_proj(states).unflatten(-1, (layer.num_heads, -1)) for layer in layers]
        norms = torch.stack([value.float().norm(dim=-1).transpose(1, 2) for value in values], 1)
        return torch.stack([each[:, :, 0].float() for each in weights], 1), norms


@contextmanager
def _recorded(layers: Sequence[torch.nn.Module]) -> Iterator[list[Tensor]]:
    """The attention weights (1, H, 1, S) of each layer, in the order in which they run."""
    weights: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda module, given, made: weights.append(made[1])) for layer in layers]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()
